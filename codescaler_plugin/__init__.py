"""CodeScaler: an execution-free reward for code, as a plugin for TRL and OpenRLHF (arXiv 2602.17684).

Importing this package loads neither torch nor transformers; public names are loaded when first used (PEP 562).
"""

from typing import TYPE_CHECKING

from codescaler_plugin._lazy import lazy

if TYPE_CHECKING:
    from codescaler_plugin.config import CodeScalerConfig
    from codescaler_plugin.data.pairs import read_pairs, write_pairs
    from codescaler_plugin.data.problems import read_problems
    from codescaler_plugin.data.rollouts import read_rollouts
    from codescaler_plugin.errors import (
        CodeScalerError,
        ConfigError,
        DataError,
        Failure,
        FailureKind,
        GenerationError,
        HttpError,
        MissingExtraError,
        SandboxError,
        ScorerError,
    )
    from codescaler_plugin.evaluation.best_of_n import evaluate_candidates
    from codescaler_plugin.evaluation.pairwise import evaluate_pairs
    from codescaler_plugin.evaluation.rm_bench import evaluate_rm_bench
    from codescaler_plugin.evaluation.robustness import evaluate_robustness
    from codescaler_plugin.execution.executor import CachingExecutor, Executor
    from codescaler_plugin.execution.remote_sandbox import RemoteSandbox
    from codescaler_plugin.execution.sandbox import Sandbox, run_tests
    from codescaler_plugin.extraction import extract_all, extract_code
    from codescaler_plugin.generation.server import server_candidates
    from codescaler_plugin.integrations.trl.monitor import RewardHackingMonitor
    from codescaler_plugin.integrations.trl.reward import CodeScalerReward, codescaler_reward
    from codescaler_plugin.integrations.trl.tests_reward import CodeScalerTestsReward
    from codescaler_plugin.integrations.trl.trainer import CodeScalerRewardConfig, CodeScalerRewardTrainer
    from codescaler_plugin.pipeline import CodeScaler
    from codescaler_plugin.preference.augmentation import AugmentationReport, augment_pairs
    from codescaler_plugin.preference.data_card import write_data_card
    from codescaler_plugin.preference.mining import MiningReport, mine_pairs
    from codescaler_plugin.preference.preparation import prepare_preference_dataset
    from codescaler_plugin.preference.verification import VerificationReport, verify_rollouts
    from codescaler_plugin.quickstart import QuickstartReport, run_quickstart
    from codescaler_plugin.records import (
        CallTest,
        Comparison,
        Extraction,
        Fault,
        Judgement,
        Outcome,
        PreferencePair,
        Problem,
        Ranked,
        Rollout,
        ScriptTest,
        Selection,
        Status,
        StdioTest,
        Verdict,
    )
    from codescaler_plugin.scoring import Scorer, load_scorer
    from codescaler_plugin.selection.adaptive import Stopping, sample_adaptively
    from codescaler_plugin.selection.calibration import Calibration
    from codescaler_plugin.selection.cascade import CascadeConfig, cascade
    from codescaler_plugin.selection.ranking import best_of_n
    from codescaler_plugin.serving.app import ServingConfig, create_app
    from codescaler_plugin.shaping import Shaping, shape_reward

__version__ = "0.1.0"

__all__ = [
    "AugmentationReport",
    "CachingExecutor",
    "Calibration",
    "CallTest",
    "CascadeConfig",
    "CodeScaler",
    "CodeScalerConfig",
    "CodeScalerError",
    "CodeScalerReward",
    "CodeScalerRewardConfig",
    "CodeScalerRewardTrainer",
    "CodeScalerTestsReward",
    "Comparison",
    "ConfigError",
    "DataError",
    "Executor",
    "Extraction",
    "Failure",
    "FailureKind",
    "Fault",
    "GenerationError",
    "HttpError",
    "Judgement",
    "MiningReport",
    "MissingExtraError",
    "Outcome",
    "PreferencePair",
    "Problem",
    "QuickstartReport",
    "Ranked",
    "RemoteSandbox",
    "RewardHackingMonitor",
    "Rollout",
    "Sandbox",
    "SandboxError",
    "Scorer",
    "ScorerError",
    "ScriptTest",
    "Selection",
    "ServingConfig",
    "Shaping",
    "Status",
    "StdioTest",
    "Stopping",
    "Verdict",
    "VerificationReport",
    "augment_pairs",
    "best_of_n",
    "cascade",
    "codescaler_reward",
    "create_app",
    "evaluate_candidates",
    "evaluate_pairs",
    "evaluate_rm_bench",
    "evaluate_robustness",
    "extract_all",
    "extract_code",
    "load_scorer",
    "mine_pairs",
    "prepare_preference_dataset",
    "read_pairs",
    "read_problems",
    "read_rollouts",
    "run_quickstart",
    "run_tests",
    "sample_adaptively",
    "server_candidates",
    "shape_reward",
    "verify_rollouts",
    "write_data_card",
    "write_pairs",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "AugmentationReport": "preference.augmentation",
        "CachingExecutor": "execution.executor",
        "Calibration": "selection.calibration",
        "CallTest": "records",
        "CascadeConfig": "selection.cascade",
        "CodeScaler": "pipeline",
        "CodeScalerConfig": "config",
        "CodeScalerError": "errors",
        "CodeScalerReward": "integrations.trl.reward",
        "CodeScalerRewardConfig": "integrations.trl.trainer",
        "CodeScalerRewardTrainer": "integrations.trl.trainer",
        "CodeScalerTestsReward": "integrations.trl.tests_reward",
        "Comparison": "records",
        "ConfigError": "errors",
        "DataError": "errors",
        "Executor": "execution.executor",
        "Extraction": "records",
        "Failure": "errors",
        "FailureKind": "errors",
        "Fault": "records",
        "GenerationError": "errors",
        "HttpError": "errors",
        "Judgement": "records",
        "MiningReport": "preference.mining",
        "MissingExtraError": "errors",
        "Outcome": "records",
        "PreferencePair": "records",
        "Problem": "records",
        "QuickstartReport": "quickstart",
        "Ranked": "records",
        "RemoteSandbox": "execution.remote_sandbox",
        "RewardHackingMonitor": "integrations.trl.monitor",
        "Rollout": "records",
        "Sandbox": "execution.sandbox",
        "SandboxError": "errors",
        "Scorer": "scoring",
        "ScorerError": "errors",
        "ScriptTest": "records",
        "Selection": "records",
        "ServingConfig": "serving.app",
        "Shaping": "shaping",
        "Status": "records",
        "StdioTest": "records",
        "Stopping": "selection.adaptive",
        "Verdict": "records",
        "VerificationReport": "preference.verification",
        "augment_pairs": "preference.augmentation",
        "best_of_n": "selection.ranking",
        "cascade": "selection.cascade",
        "codescaler_reward": "integrations.trl.reward",
        "create_app": "serving.app",
        "evaluate_candidates": "evaluation.best_of_n",
        "evaluate_pairs": "evaluation.pairwise",
        "evaluate_rm_bench": "evaluation.rm_bench",
        "evaluate_robustness": "evaluation.robustness",
        "extract_all": "extraction",
        "extract_code": "extraction",
        "load_scorer": "scoring",
        "mine_pairs": "preference.mining",
        "prepare_preference_dataset": "preference.preparation",
        "read_pairs": "data.pairs",
        "read_problems": "data.problems",
        "read_rollouts": "data.rollouts",
        "run_quickstart": "quickstart",
        "run_tests": "execution.sandbox",
        "sample_adaptively": "selection.adaptive",
        "server_candidates": "generation.server",
        "shape_reward": "shaping",
        "verify_rollouts": "preference.verification",
        "write_data_card": "preference.data_card",
        "write_pairs": "data.pairs",
    },
)
