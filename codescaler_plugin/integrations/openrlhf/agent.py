"""OpenRLHF's agent from a file: `--train.agent_func_path "$(codescaler where openrlhf-agent)"`, from 0.9.1.

One turn, as the host's own, but the reward is asked for by this package: connections that stay open, retries with
back-off, a fallback for what cannot be scored, and the very text of the answer instead of the decoded whole. Settings
as for `openrlhf_reward`; what is wrong with them is raised when the host loads this file.
"""

from typing import Any

from codescaler_plugin.errors import MissingExtraError
from codescaler_plugin.integrations.reward_hook import hook
from codescaler_plugin.serving.samples import Sample

try:
    from openrlhf.utils.agent import SingleTurnAgentExecutor  # type: ignore[import-not-found]
except ImportError as error:
    raise MissingExtraError(f"the agent needs OpenRLHF 0.9.1 or newer: {error}") from error

hook().check()


class AgentExecutor(SingleTurnAgentExecutor):  # type: ignore[misc]
    """`SingleTurnAgentExecutor` with the reward of `reward_hook`; the name is what the host looks for."""

    async def execute(self, *, prompt: str, label: Any, hf_tokenizer: Any, **rest: Any) -> dict[str, Any]:
        """One answer with `reward` (shaped, or the fallback), `scores` (in [0, 1]) and `extra_logs`, all floats.

        Called with keywords (openrlhf 0.9.1 to 0.11.2, `trainer/ray/vllm_engine.py`); `rest` is the host's.
        """
        output: dict[str, Any] = await super().execute(prompt=prompt, label=label, hf_tokenizer=hf_tokenizer, **rest)
        [(start, end)] = output["action_ranges"]
        answer = _text(output["observation_tokens"][start:end], hf_tokenizer)
        [judgement] = await hook().judge_async([Sample.from_query(prompt + answer, prompt, label)])
        output.update(
            reward=judgement.reward_or(hook().fallback), scores=judgement.probability, extra_logs=judgement.logs()
        )
        return output


def _text(tokens: list[int], tokenizer: Any) -> str:
    """An answer as it was written, without the special tokens that end it."""
    end = len(tokens)
    while end and tokens[end - 1] in tokenizer.all_special_ids:
        end -= 1
    text: str = tokenizer.decode(tokens[:end], skip_special_tokens=False)
    return text
