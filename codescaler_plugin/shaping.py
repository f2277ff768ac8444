"""Raw scores and statuses -> rewards.

The paper's shape is softplus, log(1 + e^score), for valid code and 0 for anything else, so that valid code beats
invalid code. Below a score of about -10 its value disappears in the rounding of other rewards, and with it the
difference between valid and invalid code for hard problems; `floor` restores that difference. No shape calibrates: a
reward ranks two completions of one problem, and does not say how good either is.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.records import Status

SHAPINGS = ("softplus", "raw", "sigmoid", "group_center", "rank")
LARGEST = float(np.finfo(np.float32).max)
"""Largest score and reward."""

_Array = NDArray[np.floating[Any]]
_SMALLEST = float(np.finfo(np.float32).tiny)  # accelerators flush smaller numbers to 0


@dataclass(frozen=True)
class Shaping:
    """A shape of the reward with its settings.

    With x = (score - offset) / temperature, the reward of valid code is:

    - `softplus` (paper): floor + log(1 + e^x), in (floor, ∞);
    - `sigmoid`: floor + 1 / (1 + e^-x), in (floor, floor + 1];
    - `group_center`: `softplus` after subtracting the mean score of the group's valid code;
    - `rank`: floor + average rank of the score in its group (1: lowest) / number of ranked, in (floor, floor + 1];
    - `raw`: the score itself. Only here can valid code get less than invalid code.

    A group is all completions of one problem in one call. `group_center` and `rank` need whole groups: if a trainer
    splits a group over processes, each part is shaped separately.

    Attributes:
        kind: one of `SHAPINGS`. The default is the paper's.
        temperature: divisor of the score, above 0. Not for `rank` and `raw`.
        offset: number subtracted from each score. Not for `rank` and `raw`.
        floor: lower bound of the reward of valid code, at least 0. Not for `raw`.

    Raises:
        ConfigError: a setting is out of range, or the shape does not use it.

    Example:
        >>> shaping = Shaping("sigmoid", floor=1.0)
        >>> shaping.rewards([0.0, None], [Status.OK, Status.SYNTAX_ERROR], groups=["problem"] * 2)
        [1.5, 0.0]
    """

    kind: str = "softplus"
    temperature: float = 1.0
    offset: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in SHAPINGS:
            raise ConfigError(f"shaping is {self.kind!r}: expected one of {', '.join(SHAPINGS)}")
        for name in ("temperature", "offset", "floor"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) < 1e6:
                raise ConfigError(f"{name} is {value!r}: expected a finite number below a million")
        if not self.temperature >= 1e-6:
            raise ConfigError(f"temperature is {self.temperature}: expected a number above 0")
        if self.floor < 0:
            raise ConfigError(f"floor is {self.floor}: expected at least 0, the reward of invalid code")
        unused = {"raw": ("temperature", "offset", "floor"), "rank": ("temperature", "offset")}.get(self.kind, ())
        for name in unused:
            if getattr(self, name) != getattr(Shaping, name):
                raise ConfigError(f"{name} has no effect with shaping {self.kind!r}: leave it out")

    @property
    def needs_group(self) -> bool:
        """True if a reward depends on the other completions of its group."""
        return self.kind in ("group_center", "rank")

    def rewards(
        self, scores: Sequence[float | None], statuses: Sequence[Status], groups: Sequence[Hashable]
    ) -> list[float | None]:
        """Return the rewards of n completions, in order.

        The reward is 0.0 for invalid code with any score, None for valid code without a finite score (hosts leave it
        out), and a finite float32 value otherwise. Except for `raw`, it is above 0 and strictly increases with the
        float32 score within a group: if a shape rounds two scores to one value, they are moved apart by the smallest
        step.

        The groups are n keys, equal for completions of one problem.

        Raises:
            DataError: the lengths differ, or a status is unknown.
        """
        if not len(scores) == len(statuses) == len(groups):
            counts = f"{len(scores)} scores, {len(statuses)} statuses and {len(groups)} groups"
            raise DataError(f"{counts}: expected one of each for every completion")
        try:
            statuses = [Status(status) for status in statuses]
        except ValueError as error:
            raise DataError(f"{error}: expected one of {', '.join(Status)}") from None
        rewards: list[float | None] = [None if status is Status.OK else 0.0 for status in statuses]
        members: dict[Hashable, list[int]] = {}
        for row, (score, status) in enumerate(zip(scores, statuses, strict=True)):
            if status is Status.OK and score is not None and abs(score) <= LARGEST:
                members.setdefault(groups[row], []).append(row)
        for rows in members.values():
            shaped = self._group(np.array([scores[row] for row in rows], dtype=np.float32))
            for row, reward in zip(rows, shaped.tolist(), strict=True):
                rewards[row] = reward
        return rewards

    def _group(self, scores: _Array) -> _Array:
        if self.kind == "raw":
            return scores
        distinct, position, counts = np.unique(scores, return_inverse=True, return_counts=True)
        exact = distinct.astype(np.float64)
        if self.kind == "rank":
            values = (np.cumsum(counts) - (counts - 1) / 2) / len(scores)
        else:
            if self.kind == "group_center":
                exact = exact - np.average(exact, weights=counts)
            x = (exact - self.offset) / self.temperature
            # logaddexp(0, x) is log(1 + e^x) without overflow and without rounding to 0 at x = -37.
            values = np.exp(-np.logaddexp(0.0, -x)) if self.kind == "sigmoid" else np.logaddexp(0.0, x)
        ceiling = self.floor + 1.0 if self.kind in ("sigmoid", "rank") else LARGEST
        shaped: _Array = _apart(self.floor + values, ceiling)[position]
        return shaped


def shape_reward(
    score: float | None,
    status: Status,
    *,
    shaping: str = "softplus",
    temperature: float = 1.0,
    offset: float = 0.0,
    floor: float = 0.0,
) -> float | None:
    """Return the reward of one completion: 0 for invalid code, above 0 for valid code, None without a finite score.

    `score` is the raw logit, None if the model has none. `shaping` is `softplus` (paper), `sigmoid` or `raw`; see
    `Shaping` for it and the other settings.

    Raises:
        ConfigError: a setting is out of range, or the shape needs a whole group (`group_center`, `rank`).
        DataError: the status is unknown.

    Example:
        >>> round(shape_reward(2.0, Status.OK), 3), shape_reward(2.0, Status.NO_BLOCK)
        (2.127, 0.0)
    """
    shape = Shaping(shaping, temperature, offset, floor)
    if shape.needs_group:
        raise ConfigError(f"shaping {shaping!r} compares the completions of a group: use Shaping({shaping!r}).rewards")
    return shape.rewards([score], [status], [0])[0]


def _apart(values: _Array, ceiling: float) -> _Array:
    """Increasing values as strictly increasing float32 values in [smallest, ceiling], moved as little as possible."""
    rounded: _Array = np.clip(values, _SMALLEST, ceiling).astype(np.float32)
    if (np.diff(rounded) > 0).all():
        return rounded
    for index in range(1, len(rounded)):
        rounded[index] = max(rounded[index], np.nextafter(rounded[index - 1], np.float32(LARGEST)))
    rounded[-1] = min(rounded[-1], np.float32(ceiling))
    for index in range(len(rounded) - 2, -1, -1):
        rounded[index] = min(rounded[index], np.nextafter(rounded[index + 1], np.float32(-np.inf)))
    return rounded
