"""OpenRLHF's agent from a file: `--train.agent_func_path "$(codescaler where openrlhf-agent)"`, from 0.9.1.

It runs one turn, like the host's own agent, but this package gets the reward: over open connections, with retries, a
fallback for completions that cannot be scored, and the exact text of the completion rather than the decoded whole.
The settings are those of `reward.py` beside this file. Wrong ones raise when the host loads the file.
"""

from typing import Any

from codescaler_plugin.errors import MissingExtraError
from codescaler_plugin.integrations.reward_hook import hook
from codescaler_plugin.serving.samples import Sample

try:
    from openrlhf.utils.agent import SingleTurnAgentExecutor
except ImportError as error:
    raise MissingExtraError(f"the agent needs OpenRLHF 0.9.1 or newer: {error}") from error

hook().check()


class AgentExecutor(SingleTurnAgentExecutor):  # type: ignore[misc]
    """`SingleTurnAgentExecutor` with the reward of `reward_hook`. The host looks for this name."""

    async def execute(self, *, prompt: str, label: Any, hf_tokenizer: Any, **rest: Any) -> dict[str, Any]:
        """One completion with `reward` (shaped, or the fallback), `scores` (in [0, 1]) and `extra_logs`, all floats.

        OpenRLHF 0.9.1 to 0.11.2 calls it with keywords (`trainer/ray/vllm_engine.py`); `rest` is passed on.
        """
        output: dict[str, Any] = await super().execute(prompt=prompt, label=label, hf_tokenizer=hf_tokenizer, **rest)
        [(start, end)] = output["action_ranges"]
        completion = _text(output["observation_tokens"][start:end], hf_tokenizer)
        [judgement] = await hook().judge_async([Sample.from_query(prompt + completion, prompt, label)])
        output.update(
            reward=judgement.reward_or(hook().fallback), scores=judgement.probability, extra_logs=judgement.logs()
        )
        return output


def _text(tokens: list[int], tokenizer: Any) -> str:
    """The text of a completion without the special tokens at its end."""
    end = len(tokens)
    while end and tokens[end - 1] in tokenizer.all_special_ids:
        end -= 1
    text: str = tokenizer.decode(tokens[:end], skip_special_tokens=False)
    return text
