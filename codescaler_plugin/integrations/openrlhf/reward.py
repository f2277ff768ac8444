"""OpenRLHF's reward from a file: `--reward.remote_url "$(codescaler where openrlhf)"`.

Up to 0.10.1 the flag is `--remote_rm_url`. The settings are `CODESCALER_*` variables of the Ray job:
`CODESCALER_MODEL` names codescaler servers, or a model that each vLLM engine loads (up to 0.9.0 each Ray worker, so
use a server there). Wrong settings raise when the host loads this file, since it swallows later errors (0.11.2,
`utils/agent.py`). The host loads it by path, and up to 0.9.0 pickles its contents, so all state is in `reward_hook`.
"""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from codescaler_plugin.integrations.reward_hook import hook
from codescaler_plugin.pipeline import check_lengths
from codescaler_plugin.serving.samples import Sample

hook().check()


def reward_func(
    queries: Sequence[str],
    prompts: Sequence[str],
    labels: Sequence[Any] | None = None,
    **kwargs: Any,  # noqa: ARG001 - arguments of later releases
) -> Any:
    """The rewards of n completions for OpenRLHF 0.5 to 0.11.2. Thread-safe; never loses a completion.

    Queries (prompt and completion) and prompts are templated, with special tokens. Labels are absent in 0.5; a dict,
    or its JSON, may hold the problem.

    Returns:
        A dict of float tensors of shape (n,): `rewards` (shaped, or `CODESCALER_FALLBACK` if the reward model failed),
        `scores` (in [0, 1], for dynamic filtering), and in `extra_logs` `codescaler_valid` and `codescaler_fallback`
        (0 or 1). Releases before 0.8 take no dict and get the rewards alone.
    """
    import torch

    check_lengths(queries=queries, prompts=prompts)
    labels = labels if labels is not None else [None] * len(queries)
    judgements = hook().judge([Sample.from_query(*row) for row in zip(queries, prompts, labels, strict=True)])
    rewards = torch.tensor([judgement.reward_or(hook().fallback) for judgement in judgements])
    if _takes_tensors():
        return rewards
    logs = [judgement.logs() for judgement in judgements]
    return {
        "rewards": rewards,
        "scores": torch.tensor([judgement.probability for judgement in judgements]),
        "extra_logs": {name: torch.tensor([log[name] for log in logs]) for name in (logs[0] if logs else ())},
    }


def _takes_tensors() -> bool:
    """Whether OpenRLHF is older than 0.8 (`trainer/ppo_utils/experience_maker.py` of 0.5.9 and 0.7.5)."""
    try:
        release = version("openrlhf").split(".")
    except PackageNotFoundError:
        return False
    return (int(release[0]), int(release[1])) < (0, 8)
