"""From raw score and status to reward.

The paper's shape is softplus, log(1 + e^score), for valid code and 0 for anything else, so that valid code beats
invalid code. It does not calibrate: a reward says which of two answers to one problem is better, not how good it is.
"""

import math
import sys

from codescaler_plugin.config import SHAPINGS
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.records import Status


def shape_reward(score: float | None, status: Status, *, shaping: str = "softplus") -> float | None:
    """The reward of one completion.

    Args:
        score: raw logit, or None where the reward model gave none.
        status: the extraction's status; anything but `ok` is worth exactly 0, whatever the score.
        shaping: `softplus` (paper) or `raw`. With `raw` a valid program can score below an invalid one.

    Returns:
        0.0 for unusable code; None for usable code without a finite score (the caller leaves such a sample out);
        else the shaped score: for `softplus` in (0, ∞), finite and non-decreasing for every finite score. Scores below
        -708 all give the smallest normal float; a host that stores rewards in float32 loses those below -103 to 0.

    Raises:
        ConfigError: an unknown shaping.
    """
    if shaping not in SHAPINGS:
        raise ConfigError(f"shaping is {shaping!r}: expected one of {', '.join(SHAPINGS)}")
    if status is not Status.OK:
        return 0.0
    if score is None or not math.isfinite(score):
        return None
    if shaping == "raw":
        return score
    # log(1 + e^s) = max(s, 0) + log1p(e^-|s|): no overflow, and no rounding to 0 at s = -37 as log(1 + e^s) has.
    reward = max(score, 0.0) + math.log1p(math.exp(-abs(score)))
    return max(reward, sys.float_info.min)
