"""verl's custom reward: `reward.custom_reward_function.path="$(codescaler where verl)"`.

verl 0.9.1 calls it once per completion, from threads or as a coroutine, in each of `reward.num_workers` processes
(`experimental/reward_loop/reward_manager/naive.py`). So use a server (`CODESCALER_MODEL=http://host:port`) unless the
model is small. Wrong settings raise when the host loads this file.
"""

from typing import Any

from codescaler_plugin.errors import DataError
from codescaler_plugin.integrations.reward_hook import hook
from codescaler_plugin.records import Judgement
from codescaler_plugin.serving.samples import Sample
from codescaler_plugin.text.messages import stated_problem

hook().check()


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,  # noqa: ARG001 - the host's signature
    extra_info: dict[str, Any] | None = None,
    **kwargs: Any,  # noqa: ARG001 - `reward_kwargs`, and the arguments of the host's reward router
) -> dict[str, float]:
    """The reward of one completion, decoded without special tokens, for verl. Thread-safe.

    verl passes no prompt: `problem`, `question` or `question_content` of `extra_info` is the problem, as text or
    messages.

    Returns:
        `score` (shaped, or `CODESCALER_FALLBACK` if the reward model failed), and for verl's logs `probability`
        (in [0, 1]), `codescaler_valid` and `codescaler_fallback` (0 or 1).
    """
    return _numbers(hook().judge([_item(data_source, solution_str, extra_info)]))


async def compute_score_async(
    data_source: str,
    solution_str: str,
    ground_truth: Any,  # noqa: ARG001 - the host's signature
    extra_info: dict[str, Any] | None = None,
    **kwargs: Any,  # noqa: ARG001 - see `compute_score`
) -> dict[str, float]:
    """The reward of one completion, as a coroutine, for all reward managers of verl but `remote`."""
    return _numbers(await hook().judge_async([_item(data_source, solution_str, extra_info)]))


def _numbers(judgements: list[Judgement]) -> dict[str, float]:
    [judgement] = judgements
    reward = judgement.reward_or(hook().fallback)
    return {"score": reward, "probability": judgement.probability, **judgement.logs()}


def _item(data_source: str, solution: str, extra_info: dict[str, Any] | None) -> Sample:
    problem = stated_problem(extra_info)
    if problem is None:
        raise DataError(
            f"a row of {data_source!r} has no problem: put its text into extra_info under 'problem'; extra_info holds "
            f"{', '.join(map(str, extra_info or ())) or 'nothing'}"
        )
    return Sample("completion", problem, solution or "")
