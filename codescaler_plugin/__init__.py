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
        MissingExtraError,
        SandboxError,
        ScorerError,
    )
    from codescaler_plugin.extraction import extract_code
    from codescaler_plugin.integrations.trl_reward import CodeScalerReward, codescaler_reward
    from codescaler_plugin.pipeline import CodeScaler
    from codescaler_plugin.records import Extraction, Judgement, Status, Verdict
    from codescaler_plugin.scoring import Scorer, load_scorer
    from codescaler_plugin.shaping import shape_reward

__version__ = "0.1.0"

_HOMES = {
    "CodeScaler": "pipeline",
    "CodeScalerConfig": "config",
    "CodeScalerError": "errors",
    "CodeScalerReward": "integrations.trl_reward",
    "ConfigError": "errors",
    "DataError": "errors",
    "Extraction": "records",
    "Judgement": "records",
    "MissingExtraError": "errors",
    "SandboxError": "errors",
    "Scorer": "scoring",
    "ScorerError": "errors",
    "Status": "records",
    "Verdict": "records",
    "codescaler_reward": "integrations.trl_reward",
    "extract_code": "extraction",
    "load_scorer": "scoring",
    "shape_reward": "shaping",
}

__all__ = [
    "CodeScaler",
    "CodeScalerConfig",
    "CodeScalerError",
    "CodeScalerReward",
    "ConfigError",
    "DataError",
    "Extraction",
    "Judgement",
    "MissingExtraError",
    "SandboxError",
    "Scorer",
    "ScorerError",
    "Status",
    "Verdict",
    "codescaler_reward",
    "extract_code",
    "load_scorer",
    "shape_reward",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
