"""verl's custom reward: `reward.custom_reward_function.path="$(codescaler where verl)"`.

Written against verl 0.9.1 (`experimental/reward_loop/reward_manager/naive.py`): one call per sample, from threads or
as a coroutine, in each of `reward.num_workers` processes; so take a server (`CODESCALER_MODEL=http://host:port`)
unless the model is small. What is wrong with the settings is raised when the host loads this file.
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
    **kwargs: Any,  # noqa: ARG001 - `reward_kwargs`, and what a reward router of the host adds
) -> dict[str, float]:
    """The reward of one answer, for verl; thread-safe.

    Args:
        data_source: of the row.
        solution_str: the answer, decoded without special tokens.
        ground_truth: of the row; not read.
        extra_info: of the row; its `problem`, `question` or `question_content` is the problem, as text or messages.
        **kwargs: not read.

    Returns:
        `score` (shaped, or `CODESCALER_FALLBACK` where the reward model failed), and for verl's logs `probability`
        (in [0, 1]), `codescaler_valid` and `codescaler_fallback` (0 or 1).

    Raises:
        DataError: the row holds no problem: verl hands no prompt to a reward.
    """
    [judgement] = hook().judge([_item(data_source, solution_str, extra_info)])
    return _numbers(judgement)


async def compute_score_async(
    data_source: str,
    solution_str: str,
    ground_truth: Any,  # noqa: ARG001 - the host's signature
    extra_info: dict[str, Any] | None = None,
    **kwargs: Any,  # noqa: ARG001 - as above
) -> dict[str, float]:
    """As `compute_score`, without a thread of the host's; for reward managers that await, all but `remote`."""
    [judgement] = await hook().judge_async([_item(data_source, solution_str, extra_info)])
    return _numbers(judgement)


def _numbers(judgement: Judgement) -> dict[str, float]:
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
