"""CodeScaler: an execution-free reward for code, as a plugin for TRL and OpenRLHF (arXiv 2602.17684).

Importing this package loads neither torch nor transformers; public names are loaded when first used (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `as` exports a name to type checkers, which do not read a computed `__all__`
    # ruff: noqa: I001 - one statement a module
    from codescaler_plugin.config import CodeScalerConfig as CodeScalerConfig
    from codescaler_plugin.data.pairs import read_pairs as read_pairs, write_pairs as write_pairs
    from codescaler_plugin.data.problems import read_problems as read_problems
    from codescaler_plugin.data.rollouts import read_rollouts as read_rollouts
    from codescaler_plugin.errors import (
        CodeScalerError as CodeScalerError,
        ConfigError as ConfigError,
        DataError as DataError,
        Failure as Failure,
        FailureKind as FailureKind,
        GenerationError as GenerationError,
        HttpError as HttpError,
        MissingExtraError as MissingExtraError,
        SandboxError as SandboxError,
        ScorerError as ScorerError,
    )
    from codescaler_plugin.evaluation.best_of_n import (
        BestOfNResult as BestOfNResult,
        evaluate_candidates as evaluate_candidates,
    )
    from codescaler_plugin.evaluation.pair_result import PairResult as PairResult
    from codescaler_plugin.evaluation.pairwise import evaluate_pairs as evaluate_pairs
    from codescaler_plugin.evaluation.rm_bench import (
        RMBenchResult as RMBenchResult,
        evaluate_rm_bench as evaluate_rm_bench,
    )
    from codescaler_plugin.evaluation.robustness import (
        RobustnessResult as RobustnessResult,
        evaluate_robustness as evaluate_robustness,
    )
    from codescaler_plugin.execution.executor import CachingExecutor as CachingExecutor, Executor as Executor
    from codescaler_plugin.execution.remote_sandbox import RemoteSandbox as RemoteSandbox
    from codescaler_plugin.execution.sandbox import Sandbox as Sandbox, run_tests as run_tests
    from codescaler_plugin.extraction import extract_all as extract_all, extract_code as extract_code
    from codescaler_plugin.extraction.languages import Language as Language
    from codescaler_plugin.generation.server import server_candidates as server_candidates
    from codescaler_plugin.integrations.trl.monitor import RewardHackingMonitor as RewardHackingMonitor
    from codescaler_plugin.integrations.trl.reward import (
        CodeScalerReward as CodeScalerReward,
        codescaler_reward as codescaler_reward,
    )
    from codescaler_plugin.integrations.trl.tests_reward import CodeScalerTestsReward as CodeScalerTestsReward
    from codescaler_plugin.integrations.trl.trainer import CodeScalerRewardTrainer as CodeScalerRewardTrainer
    from codescaler_plugin.integrations.trl.trainer_config import CodeScalerRewardConfig as CodeScalerRewardConfig
    from codescaler_plugin.pipeline import CodeScaler as CodeScaler
    from codescaler_plugin.preference.augmentation import (
        AugmentationReport as AugmentationReport,
        augment_pairs as augment_pairs,
    )
    from codescaler_plugin.preference.data_card import write_data_card as write_data_card
    from codescaler_plugin.preference.mining import mine_pairs as mine_pairs
    from codescaler_plugin.preference.mining_report import MiningReport as MiningReport
    from codescaler_plugin.preference.preparation import prepare_preference_dataset as prepare_preference_dataset
    from codescaler_plugin.preference.verification import (
        VerificationReport as VerificationReport,
        verify_rollouts as verify_rollouts,
    )
    from codescaler_plugin.quickstart import QuickstartReport as QuickstartReport, run_quickstart as run_quickstart
    from codescaler_plugin.records import (
        CallTest as CallTest,
        Comparison as Comparison,
        Extraction as Extraction,
        Fault as Fault,
        Judgement as Judgement,
        PreferencePair as PreferencePair,
        Problem as Problem,
        Rollout as Rollout,
        ScriptTest as ScriptTest,
        Status as Status,
        StdioTest as StdioTest,
        Verdict as Verdict,
    )
    from codescaler_plugin.scoring import Scorer as Scorer, load_scorer as load_scorer
    from codescaler_plugin.selection.adaptive import Stopping as Stopping, sample_adaptively as sample_adaptively
    from codescaler_plugin.selection.calibration import Calibration as Calibration
    from codescaler_plugin.selection.cascade import CascadeConfig as CascadeConfig, cascade as cascade
    from codescaler_plugin.selection.ranking import best_of_n as best_of_n
    from codescaler_plugin.selection.records import Outcome as Outcome, Ranked as Ranked, Selection as Selection
    from codescaler_plugin.serving.app import create_app as create_app
    from codescaler_plugin.serving.config import ServingConfig as ServingConfig
    from codescaler_plugin.shaping import Shaping as Shaping, shape_reward as shape_reward

__version__ = "0.1.0"

_PUBLIC = {  # module -> its public names
    "config": "CodeScalerConfig",
    "data.pairs": "read_pairs write_pairs",
    "data.problems": "read_problems",
    "data.rollouts": "read_rollouts",
    "errors": "CodeScalerError ConfigError DataError Failure FailureKind GenerationError HttpError "
    "MissingExtraError SandboxError ScorerError",
    "evaluation.best_of_n": "BestOfNResult evaluate_candidates",
    "evaluation.pair_result": "PairResult",
    "evaluation.pairwise": "evaluate_pairs",
    "evaluation.rm_bench": "RMBenchResult evaluate_rm_bench",
    "evaluation.robustness": "RobustnessResult evaluate_robustness",
    "execution.executor": "CachingExecutor Executor",
    "execution.remote_sandbox": "RemoteSandbox",
    "execution.sandbox": "Sandbox run_tests",
    "extraction": "extract_all extract_code",
    "extraction.languages": "Language",
    "generation.server": "server_candidates",
    "integrations.trl.monitor": "RewardHackingMonitor",
    "integrations.trl.reward": "CodeScalerReward codescaler_reward",
    "integrations.trl.tests_reward": "CodeScalerTestsReward",
    "integrations.trl.trainer": "CodeScalerRewardTrainer",
    "integrations.trl.trainer_config": "CodeScalerRewardConfig",
    "pipeline": "CodeScaler",
    "preference.augmentation": "AugmentationReport augment_pairs",
    "preference.data_card": "write_data_card",
    "preference.mining": "mine_pairs",
    "preference.mining_report": "MiningReport",
    "preference.preparation": "prepare_preference_dataset",
    "preference.verification": "VerificationReport verify_rollouts",
    "quickstart": "QuickstartReport run_quickstart",
    "records": "CallTest Comparison Extraction Fault Judgement PreferencePair Problem Rollout "
    "ScriptTest Status StdioTest Verdict",
    "scoring": "Scorer load_scorer",
    "selection.adaptive": "Stopping sample_adaptively",
    "selection.calibration": "Calibration",
    "selection.cascade": "CascadeConfig cascade",
    "selection.ranking": "best_of_n",
    "selection.records": "Outcome Ranked Selection",
    "serving.app": "create_app",
    "serving.config": "ServingConfig",
    "shaping": "Shaping shape_reward",
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
