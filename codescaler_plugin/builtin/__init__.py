"""The paths of the embedded models and problems. `MODEL_CARD.md` describes how they were made and how good they are.

They serve the quickstart, tests and teaching. The reward model is not a general one for code.
"""

from pathlib import Path

_HERE = Path(__file__).parent
REAL_MODEL = "LARK-Lab/CodeScaler-1.7B"  # hub id of a model for other problems than the miniature's
REWARD_MODEL = _HERE / "reward_model"
POLICY = _HERE / "policy"
MODEL_CARD = _HERE / "MODEL_CARD.md"
TRAIN_PROBLEMS = _HERE / "problems" / "train.jsonl"
HELD_OUT_PROBLEMS = _HERE / "problems" / "held_out.jsonl"

BUILTIN = "builtin"
"""The name of the embedded reward model, and of the embedded policy where a policy is needed."""


def reward_model(name: str) -> str:
    """Return the directory or hub id of a reward model."""
    return str(REWARD_MODEL) if name == BUILTIN else name


def policy_model(name: str) -> str:
    """Return the directory or hub id of a policy."""
    return str(POLICY) if name == BUILTIN else name
