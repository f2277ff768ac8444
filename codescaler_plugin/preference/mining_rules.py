"""The rules of mining, which are the same for mined and for given pairs: each is one subclass of `MiningRule`.

A rule takes the pools of all problems and returns those that are left. `apply_rules` lists those that always run.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import count
from math import lcm
from random import Random
from typing import Any, ClassVar, TypedDict

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.extraction.fingerprint import distinct_programs
from codescaler_plugin.preference.decontamination import clusters, contaminated
from codescaler_plugin.preference.mining_report import MiningReport
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.text.lines import folded

NEAR_MISS = 0.5  # share of the tests that a rejected program passes at least ("passes most")


class MiningSettings(TypedDict, total=False):
    """Settings of the standard rules; see `mine_pairs`."""

    evaluation: Mapping[str, Sequence[str]] | None
    pairs_per_problem: int | None
    hard: float | None
    max_pairs: int | None
    held_out: float
    seed: int


@dataclass(slots=True)
class Program:
    """A program of a problem: the share of tests that it passes, its earliest step (both None if unknown), its run."""

    pass_rate: float | None
    step: int | None
    source: str


@dataclass(slots=True)
class PairPool:
    """The pairs that one problem allows: `pairs`, or, while that is None, all of a passing and a failing program.

    `passing` and `failing` hold programs by their code; both are empty for pairs that were given.
    """

    problem: str
    problem_id: str
    passing: dict[str, Program] = field(default_factory=dict)
    failing: dict[str, Program] = field(default_factory=dict)
    pairs: list[PreferencePair] | None = None

    def __len__(self) -> int:
        """Programs that can be in a pair; of given pairs, the pairs. This is what the report counts."""
        if self.pairs is None:
            return len(self.passing) + len(self.failing)
        return len(set(self.codes())) if self.passing else len(self.pairs)

    def codes(self) -> Iterator[str]:
        """The programs of all pairs. A program in several pairs can come several times."""
        if self.pairs is None:
            yield from (*self.passing, *self.failing)
        for pair in self.pairs or ():
            yield from (pair.chosen, pair.rejected)

    def keep(self, is_kept: Callable[[str], bool]) -> None:
        """Remove the programs for which `is_kept` is false, with their pairs."""
        self.passing, self.failing = (
            {code: program for code, program in side.items() if is_kept(code)} for side in (self.passing, self.failing)
        )
        if self.pairs is not None:
            self.pairs = [pair for pair in self.pairs if is_kept(pair.chosen) and is_kept(pair.rejected)]

    def pair(self, chosen: str, rejected: str) -> PreferencePair:
        """The pair of a passing and a failing program."""
        right, wrong = self.passing[chosen], self.failing[rejected]
        steps = [program.step for program in (right, wrong) if program.step is not None]
        return PreferencePair(
            problem=self.problem,
            chosen=chosen,
            rejected=rejected,
            kind="rollout",
            problem_id=self.problem_id,
            margin=None if wrong.pass_rate is None else round(1 - wrong.pass_rate, 6),
            step=max(steps) if steps else None,
            source=", ".join(dict.fromkeys(program.source for program in (right, wrong) if program.source)),
        )


class MiningRule(ABC):
    """One step of mining. A subclass is a dataclass: its fields are its settings, checked in `__post_init__`.

    `reason` names in the report what the rule removes; the rule itself only has to count what has another reason.

    Example:
        >>> from codescaler_plugin import mine_pairs
        >>> @dataclass(frozen=True)
        ... class MaxCharacters(MiningRule):
        ...     reason: ClassVar[str] = "too long"
        ...     max_characters: int
        ...     def __call__(self, pools, report):
        ...         for pool in pools:
        ...             pool.keep(lambda code: len(code) <= self.max_characters)
        ...         return pools
        >>> row = {"problem": "Add.", "status": "ok"}
        >>> rows = [row | {"code": "x = 1", "passed": True}, row | {"code": "x = 2", "passed": False}]
        >>> rows.append(row | {"code": "x = 123456789", "passed": False})
        >>> pairs, report = mine_pairs(rows, rules=[MaxCharacters(8)])
        >>> len(pairs), report.dropped
        (1, {'too long': 1})
    """

    reason: ClassVar[str]

    @abstractmethod
    def __call__(self, pools: list[PairPool], report: MiningReport) -> list[PairPool]:
        """The pools that are left. The rule may change pools in place."""

    def settings(self) -> dict[str, Any]:
        """The settings, for the report."""
        return {setting.name: getattr(self, setting.name) for setting in fields(self)}  # type: ignore[arg-type]


def apply_rules(
    pools: list[PairPool],
    report: MiningReport,
    rules: Iterable[MiningRule],
    *,
    evaluation: Mapping[str, Sequence[str]] | None = None,
    pairs_per_problem: int | None = 8,
    hard: float | None = None,
    max_pairs: int | None = None,
    held_out: float = 0.0,
    seed: int = 0,
) -> list[PreferencePair]:
    """The pairs that all rules leave, in step order. The report gets the settings and what was dropped."""
    before = _Decontamination(evaluation or {}), _Deduplication()
    after = _Sampling(pairs_per_problem, hard, max_pairs, seed), _HoldOut(held_out, seed)
    pools = _mixed(pools, report)
    for rule in (*before, *rules, *after):
        report.settings |= rule.settings()
        size, counted = _size(pools), sum(report.dropped.values())
        pools = rule(pools, report)
        report.drop(rule.reason, size - _size(pools) - (sum(report.dropped.values()) - counted))
        pools = _mixed(pools, report)
    pairs = [pair for pool in pools for pair in pool.pairs or ()]
    pairs.sort(key=lambda pair: step_order(pair.step))
    report.pairs = len(pairs)
    report.near_misses = sum(near_miss(pair) is True for pair in pairs)
    report.splits = dict(Counter(pair.split for pair in pairs))
    return pairs


def _mixed(pools: list[PairPool], report: MiningReport) -> list[PairPool]:
    """The pools that allow a pair."""
    mixed = [pool for pool in pools if (pool.passing and pool.failing if pool.pairs is None else pool.pairs)]
    report.drop("one side only", _size(pools) - _size(mixed))
    return mixed


def _size(pools: list[PairPool]) -> int:
    return sum(map(len, pools))


def step_order(step: int | None) -> int:
    """A sort key: unknown steps come first."""
    return -1 if step is None else step


def near_miss(pair: PreferencePair) -> bool | None:
    """Whether the rejected side passes at least half of the tests. None: unknown."""
    return None if pair.margin is None else pair.margin <= 1 - NEAR_MISS


@dataclass(frozen=True)
class _Decontamination(MiningRule):
    """Removes problems that an evaluation set holds."""

    reason: ClassVar[str] = "contaminated"
    evaluation: Mapping[str, Sequence[str]]

    def settings(self) -> dict[str, Any]:
        """The number of problems of each evaluation set, not their texts."""
        return {"evaluation": {name: len(texts) for name, texts in self.evaluation.items()}}

    def __call__(self, pools: list[PairPool], report: MiningReport) -> list[PairPool]:
        matches = contaminated([pool.problem for pool in pools], self.evaluation)
        report.contamination = list(matches.values())
        report.problems["contaminated"] = len(matches)
        return [pool for index, pool in enumerate(pools) if index not in matches]


@dataclass(frozen=True)
class _Deduplication(MiningRule):
    """Removes programs, or given pairs, that are the same by their fingerprints; see `mine_pairs`, `refine_pairs`."""

    reason: ClassVar[str] = "same program"

    def __call__(self, pools: list[PairPool], report: MiningReport) -> list[PairPool]:
        programs = distinct_programs(code for pool in pools for code in pool.codes())
        used: tuple[set[int], set[int]] = set(), set()  # programs of the problems so far, by side
        for pool in sorted(pools, key=_first_step):
            if pool.pairs is not None:
                pool.pairs = _distinct_pairs(pool.pairs, programs, report)
                continue
            passing, failing = ({programs[code] for code in side} for side in (pool.passing, pool.failing))
            contradictory = passing & failing
            for side, elsewhere in zip((pool.passing, pool.failing), used, strict=True):
                here: set[int] = set()
                for code in sorted(side, key=lambda code: step_order(side[code].step)):
                    program = programs[code]
                    if program in contradictory:
                        report.drop("both sides")
                    elif program in elsewhere and program not in here:
                        report.drop("other problem")
                    if program in contradictory or program in here or program in elsewhere:
                        del side[code]
                    here.add(program)
                elsewhere |= here - contradictory
        return pools


def _distinct_pairs(
    pairs: list[PreferencePair], programs: Mapping[str, int], report: MiningReport
) -> list[PreferencePair]:
    kept: dict[tuple[int, int], PreferencePair] = {}
    for pair in pairs:
        key = programs[pair.chosen], programs[pair.rejected]
        if key[0] == key[1]:
            report.drop("both sides")
        else:
            kept.setdefault(key, pair)
    reversed_keys = {key for key in kept if key[::-1] in kept}
    report.drop("both sides", len(reversed_keys))
    return [pair for key, pair in kept.items() if key not in reversed_keys]


def _first_step(pool: PairPool) -> int:
    return min((step_order(program.step) for program in (*pool.passing.values(), *pool.failing.values())), default=0)


@dataclass(frozen=True)
class _Sampling(MiningRule):
    """Caps the pairs of a problem and of all problems, with a share of near misses; see `mine_pairs`."""

    reason: ClassVar[str] = "not sampled"
    pairs_per_problem: int | None
    hard: float | None
    max_pairs: int | None
    seed: int

    def __post_init__(self) -> None:
        for name in ("pairs_per_problem", "max_pairs"):
            cap = getattr(self, name)
            if cap is not None and cap < 1:
                raise ConfigError(f"{name} is {cap}: expected a whole number of at least 1")
        if self.hard is not None and not 0 <= self.hard <= 1:
            raise ConfigError(f"hard is {self.hard}: expected a share in [0, 1]")

    def __call__(self, pools: list[PairPool], report: MiningReport) -> list[PairPool]:  # noqa: ARG002
        for pool in pools:
            rng = Random(f"{self.seed} {pool.problem_id} {folded(pool.problem)}")
            if pool.pairs is None:
                pool.pairs = list(self._of_programs(pool, rng))
            else:
                rng.shuffle(pool.pairs)
                pool.pairs = pool.pairs[: self.pairs_per_problem]
        ranked = [ranked_pair for pool in pools for ranked_pair in enumerate(pool.pairs or ())]
        if self.max_pairs is not None and len(ranked) > self.max_pairs:
            kept, index = self._breadth_first(ranked, self.max_pairs), count()
            for pool in pools:
                pool.pairs = [pair for pair in pool.pairs or () if next(index) in kept]
        return pools

    def _of_programs(self, pool: PairPool, rng: Random) -> Iterator[PreferencePair]:
        """The pairs of a problem; with `hard`, that share of them with a near miss, as far as there are any."""
        passing, failing = list(pool.passing), list(pool.failing)
        cap = len(passing) * len(failing) if self.pairs_per_problem is None else self.pairs_per_problem
        rng.shuffle(failing)
        parts = [(failing, cap)]
        if self.hard is not None:
            near = [code for code in failing if (pool.failing[code].pass_rate or 0.0) >= NEAR_MISS]
            far = [code for code in failing if (pool.failing[code].pass_rate or 0.0) < NEAR_MISS]
            near_count = int(cap * self.hard + rng.random())  # rounded by chance, so that it holds over many problems
            far_count = min(cap - min(near_count, len(near) * len(passing)), len(far) * len(passing))
            parts = [(near, cap - far_count), (far, far_count)]
        for rejected, size in parts:
            rng.shuffle(passing)
            yield from (pool.pair(*codes) for codes in _combinations(passing, rejected, size))

    def _breadth_first(self, ranked: list[tuple[int, PreferencePair]], size: int) -> set[int]:
        """The indices of `size` pairs: every problem's first, then every second; with `hard`, that share near."""
        rng = Random(f"{self.seed} max_pairs")
        order = sorted(range(len(ranked)), key=lambda index: (ranked[index][0], rng.random()))
        if self.hard is not None:
            near = [index for index in order if near_miss(ranked[index][1])]
            far = [index for index in order if not near_miss(ranked[index][1])]
            near_count = max(size - len(far), min(len(near), round(self.hard * size)))
            order = near[:near_count] + far[: size - near_count]
        return set(order[:size])


def _combinations(left: Sequence[str], right: Sequence[str], size: int) -> Iterator[tuple[str, str]]:
    """`size` distinct combinations, or all there are, in which each member is used about equally often."""
    if not left or not right:
        return
    period = lcm(len(left), len(right))
    for turn in range(min(size, len(left) * len(right))):
        yield left[(turn + turn // period) % len(left)], right[turn % len(right)]


@dataclass(frozen=True)
class _HoldOut(MiningRule):
    """Puts whole problems into the split `held_out`; those of nearly the same text are on one side."""

    reason: ClassVar[str] = "held out"
    held_out: float
    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"held_out is {self.held_out}: expected a share in [0, 1)")

    def __call__(self, pools: list[PairPool], report: MiningReport) -> list[PairPool]:
        texts = list(dict.fromkeys(folded(pool.problem) for pool in pools))
        cluster = dict(zip(texts, clusters(texts), strict=True))
        report.near_clusters = sorted((size for size in Counter(cluster.values()).values() if size > 1), reverse=True)
        drawn = {cluster[text]: self._draw(text) for text in sorted(texts, reverse=True)}  # its first text decides
        held = {index for index, number in drawn.items() if number < self.held_out}
        if self.held_out and len(drawn) > 1:  # of few problems chance may leave a side empty: the nearest goes there
            if not held:
                held.add(min(drawn, key=drawn.__getitem__))
            elif len(held) == len(drawn):
                held.remove(max(drawn, key=drawn.__getitem__))
        for pool in pools:
            split = "held_out" if cluster[folded(pool.problem)] in held else "train"
            pool.pairs = [replace(pair, split=split) for pair in pool.pairs or ()]
        return pools

    def _draw(self, text: str) -> float:
        """A number in [0, 1) that depends on seed and text alone."""
        return int.from_bytes(hashlib.sha256(f"{self.seed} {text}".encode()).digest()[:8]) / 2**64
