"""CodeScaler: an execution-free reward for code, as a plugin for TRL and OpenRLHF (arXiv 2602.17684).

Importing this package loads neither torch nor transformers; public names are loaded when first used (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from codescaler_plugin.config import CodeScalerConfig
    from codescaler_plugin.errors import (
        CodeScalerError,
        ConfigError,
        DataError,
        GenerationError,
        MissingExtraError,
        SandboxError,
        ScorerError,
    )
    from codescaler_plugin.extraction import extract_code
    from codescaler_plugin.integrations.trl.monitor import RewardHackingMonitor
    from codescaler_plugin.integrations.trl.reward import CodeScalerReward, codescaler_reward
    from codescaler_plugin.integrations.trl.tests_reward import CodeScalerTestsReward
    from codescaler_plugin.integrations.trl.trainer import (
        CodeScalerRewardConfig,
        CodeScalerRewardTrainer,
    )
    from codescaler_plugin.pipeline import CodeScaler
    from codescaler_plugin.preference.preparation import prepare_preference_dataset
    from codescaler_plugin.records import Extraction, Judgement, Status, Verdict
    from codescaler_plugin.scoring import Scorer, load_scorer
    from codescaler_plugin.selection.cascade import cascade
    from codescaler_plugin.selection.ranking import best_of_n
    from codescaler_plugin.shaping import shape_reward

__version__ = "0.1.0"

_HOMES = {
    "CodeScaler": "pipeline",
    "CodeScalerConfig": "config",
    "CodeScalerError": "errors",
    "CodeScalerReward": "integrations.trl.reward",
    "CodeScalerRewardConfig": "integrations.trl.trainer",
    "CodeScalerRewardTrainer": "integrations.trl.trainer",
    "CodeScalerTestsReward": "integrations.trl.tests_reward",
    "ConfigError": "errors",
    "DataError": "errors",
    "Extraction": "records",
    "GenerationError": "errors",
    "Judgement": "records",
    "MissingExtraError": "errors",
    "RewardHackingMonitor": "integrations.trl.monitor",
    "SandboxError": "errors",
    "Scorer": "scoring",
    "ScorerError": "errors",
    "Status": "records",
    "Verdict": "records",
    "best_of_n": "selection.ranking",
    "cascade": "selection.cascade",
    "codescaler_reward": "integrations.trl.reward",
    "extract_code": "extraction",
    "load_scorer": "scoring",
    "prepare_preference_dataset": "preference.preparation",
    "shape_reward": "shaping",
}

__all__ = [
    "CodeScaler",
    "CodeScalerConfig",
    "CodeScalerError",
    "CodeScalerReward",
    "CodeScalerRewardConfig",
    "CodeScalerRewardTrainer",
    "CodeScalerTestsReward",
    "ConfigError",
    "DataError",
    "Extraction",
    "GenerationError",
    "Judgement",
    "MissingExtraError",
    "RewardHackingMonitor",
    "SandboxError",
    "Scorer",
    "ScorerError",
    "Status",
    "Verdict",
    "best_of_n",
    "cascade",
    "codescaler_reward",
    "extract_code",
    "load_scorer",
    "prepare_preference_dataset",
    "shape_reward",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
