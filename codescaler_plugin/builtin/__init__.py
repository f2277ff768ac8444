"""The embedded models and problems, as paths. How they were made and what they are worth: MODEL_CARD.md beside this.

They exist for the first minute, for tests and for teaching. They are no general code reward model.
"""

from pathlib import Path

_HERE = Path(__file__).parent
REAL_MODEL = "LARK-Lab/CodeScaler-1.7B"  # of the hub; what to take for other problems than the miniature's
REWARD_MODEL = _HERE / "reward_model"
POLICY = _HERE / "policy"
MODEL_CARD = _HERE / "MODEL_CARD.md"
TRAIN_PROBLEMS = _HERE / "problems" / "train.jsonl"
HELD_OUT_PROBLEMS = _HERE / "problems" / "held_out.jsonl"

BUILTIN = "builtin"
"""Names the embedded model, or the embedded policy where a policy is asked for."""


def reward_model(name: str) -> str:
    """The directory or hub id of the reward model of that name."""
    return str(REWARD_MODEL) if name == BUILTIN else name


def policy_model(name: str) -> str:
    """The directory or hub id of the policy of that name."""
    return str(POLICY) if name == BUILTIN else name
