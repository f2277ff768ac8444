"""Verdicts -> preference pairs: of one problem, a program that passes every test and one that fails at least one.

The paper's preference data in the open: what its card leaves unsaid (duplicates, pairs per problem, how near the wrong
side is to right) is decided here, counted, and reported. Nothing is executed.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm
from random import Random
from typing import Any, TypeVar

from codescaler_plugin.data.matching import problem_key
from codescaler_plugin.data.pairs import checked_margin
from codescaler_plugin.data.rollouts import fault_of, problem_id_of
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.extraction.fingerprint import distinct_programs
from codescaler_plugin.preference.decontamination import Contamination, clusters, contaminated
from codescaler_plugin.records import PreferencePair, Status
from codescaler_plugin.text.lines import folded

PAIRS_PER_PROBLEM = 8
NEAR_MISS = 0.5
"""A rejected program that passes at least this share of the tests is a near miss ("passes most")."""

_OWN_COMPARISON = "scripts"

_Item = TypeVar("_Item")


@dataclass
class MiningReport:
    """What became of the rows: every row is either in a pair, or counted under the reason why not.

    Attributes:
        rows: read.
        invalid: rows without a valid program, by status.
        dropped: programs by reason: `no verdict: <fault>` (the tests say nothing of it: it is on no side); `flaky`;
            `no passing rate` (failed, yet all tests passed); `same program`
            (equal normal form, same problem, same side); `both sides` (equal normal form passes and fails);
            `other problem` (equal normal form on the same side of another problem); `contaminated`; `one side only`
            (its problem has nothing to set against it); `not sampled` (over a cap). Of given pairs, pairs by reason.
        problems: by what their programs allow: `mixed`, `all pass`, `all fail`; and `contaminated`, of the mixed.
        contamination: the removed problems with what they match.
        near_clusters: sizes of clusters of near-identical problem texts, above one.
        rollouts: rows by source, then by step.
        pass_rates: failing valid programs by tenths of the tests they pass; those of unknown rate are left out.
        in_process: rows with a verdict that was given in the process of the program, which can deceive its tests.
        comparisons: rows with a verdict by how results were compared; `scripts` compare by themselves.
        pairs: made.
        near_misses: pairs whose rejected side is a near miss.
        splits: pairs by split.
        settings: of the call.
    """

    rows: int = 0
    invalid: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)
    contamination: list[Contamination] = field(default_factory=list)
    near_clusters: list[int] = field(default_factory=list)
    rollouts: dict[str, dict[str, int]] = field(default_factory=dict)
    pass_rates: list[int] = field(default_factory=lambda: [0] * 10)
    in_process: int = 0
    comparisons: dict[str, int] = field(default_factory=Counter)
    pairs: int = 0
    near_misses: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def why_no_pairs(self) -> str:
        """The cause where no pair was made, and the next step; of several causes the one that took the last."""
        contaminated = self.problems.get("contaminated", 0)
        mixed = self.problems.get("mixed", 0)
        if contaminated and contaminated == mixed:
            names = ", ".join(sorted({one.evaluation for one in self.contamination}))
            return (
                f"all {contaminated} problems that allow a pair are contaminated: they are in {names}. Give rollouts "
                "of other problems, or leave --decontaminate out"
            )
        unjudged = {reason: count for reason, count in self.dropped.items() if reason.startswith("no verdict: ")}
        if unjudged and sum(unjudged.values()) + sum(self.invalid.values()) == self.rows:
            named = ", ".join(f"{reason} {count:,}" for reason, count in unjudged.items())
            return (
                f"the tests gave no verdict on any program ({named}): run codescaler verify again, which says what "
                "to do about each of these"
            )
        if self.rows and sum(self.invalid.values()) == self.rows:
            statuses = ", ".join(f"{status} {count:,}" for status, count in self.invalid.items())
            return f"none of {self.rows:,} rows holds a valid program ({statuses}): see codescaler extract --explain"
        if not mixed:
            return (
                "a pair needs a problem with a program that passes and one that fails: "
                f"{self.problems.get('all pass', 0):,} problems have none that fails, "
                f"{self.problems.get('all fail', 0):,} none that passes"
            )
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.dropped.items())
        return f"all programs were dropped ({reasons})"


@dataclass(slots=True)
class _Program:
    """What is known of a program on one side of a problem; its code is its key there."""

    rate: float | None
    step: int | None
    source: str


@dataclass(slots=True)
class _Group:
    """A problem: one text under one id."""

    text: str
    id: str
    passing: dict[str, _Program] = field(default_factory=dict)
    failing: dict[str, _Program] = field(default_factory=dict)


def mine_pairs(
    verdicts: Iterable[Mapping[str, Any]],
    *,
    pairs_per_problem: int = PAIRS_PER_PROBLEM,
    hard: float | None = None,
    max_pairs: int | None = None,
    held_out: float = 0.0,
    evaluation: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> tuple[list[PreferencePair], MiningReport]:
    """Pairs of distinct programs, in the order of their training steps, and what became of everything else.

    Programs are the same if their fingerprints are (`fingerprint`): of a problem's equal ones the earliest stays, one
    that both passes and fails is on neither side, and a program is chosen, or rejected, for one problem only. Two
    problems are the same if id and text are, spaces apart. Every program is used about equally often.

    Args:
        verdicts: rows with `problem`, `code`, `status`, `passed`, and if known `problem_id`, `tests_passed`,
            `tests_total`, `flaky`, `fault`, `step`, `source`. Only rows of the status `ok` count; a flaky one, and one
            with a fault, is on no side.
        pairs_per_problem: cap.
        hard: target share in [0, 1] of pairs whose rejected side passes at least half of the tests. A problem without
            such programs gives what it has, so the share reached can be lower: see the report. None: as they come.
        max_pairs: cap on all pairs; first every problem's first pair, then every second, and so on.
        held_out: share in [0, 1) of the problems that go to the split `held_out`, each by a hash of seed and text, so
            that of few problems it can be another share; of two or more, each split gets one. Problems of nearly the
            same text (`overlap.clusters`) are on one side.
        evaluation: name -> problem texts of sets that must not be trained on (`overlap.contaminated`).
        seed: of sampling and split; the same rows and seed give the same pairs.

    Raises:
        ConfigError: a setting out of its range.
        DataError: a row without the columns above; it is named by its number.
    """
    report = _report(pairs_per_problem, hard, max_pairs, held_out, seed, evaluation)
    dropped: Counter[str] = Counter()
    groups = _groups(verdicts, report, dropped)
    mixed = _mixed(groups, dropped)
    report.problems = {
        "mixed": len(mixed),
        "all pass": sum(not group.failing for group in groups),
        "all fail": sum(not group.passing for group in groups),
    }
    found = contaminated([group.text for group in mixed], evaluation or {})
    report.contamination = list(found.values())
    report.problems["contaminated"] = len(found)
    dropped["contaminated"] = sum(_size(mixed[index]) for index in found)
    mixed = [group for index, group in enumerate(mixed) if index not in found]
    _drop_same(mixed, dropped)
    mixed = _mixed(mixed, dropped)
    by_problem: list[list[PreferencePair]] = []
    for group in mixed:
        rng = Random(f"{seed} {group.id} {folded(group.text)}")
        by_problem.append(list(_pairs_of(group, pairs_per_problem, hard, rng)))
    pairs = _finished(by_problem, report)
    used = {(pair.problem_id, pair.problem, code) for pair in pairs for code in (pair.chosen, pair.rejected)}
    dropped["not sampled"] = sum(map(_size, mixed)) - len(used)
    report.dropped = {reason: count for reason, count in dropped.items() if count}
    return pairs, report


def refine_pairs(
    pairs: Iterable[PreferencePair],
    *,
    pairs_per_problem: int | None = None,
    hard: float | None = None,
    max_pairs: int | None = None,
    held_out: float = 0.0,
    evaluation: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> tuple[list[PreferencePair], MiningReport]:
    """The same deduplication, decontamination, caps and split for pairs that exist, such as CodeScalerPair-51K.

    Here a pair counts as one thing: it is dropped if a problem has it already, if its two sides are one program, or if
    its sides stand in reverse in another pair of the problem (then both go). For the arguments see `mine_pairs`.

    Raises:
        DataError: a margin that is NaN or outside of (0, 1]; its pair is named by its number.
    """
    report = _report(pairs_per_problem, hard, max_pairs, held_out, seed, evaluation)
    listed = list(pairs)
    report.rows = len(listed)
    dropped: Counter[str] = Counter()
    groups: dict[str, list[PreferencePair]] = defaultdict(list)
    rollouts: dict[str, Counter[str]] = defaultdict(Counter)
    for number, pair in enumerate(listed):
        if pair.margin is not None:
            try:
                checked_margin(pair.margin)
            except DataError as error:
                raise DataError(f"pair {number}: {error}") from None
        groups[problem_key(pair.problem_id, pair.problem)].append(pair)
        rollouts[pair.source][str(pair.step)] += 1
    report.rollouts = {source: dict(steps) for source, steps in rollouts.items()}
    forms = distinct_programs(code for pair in listed for code in (pair.chosen, pair.rejected))
    found = contaminated([group[0].problem for group in groups.values()], evaluation or {})
    report.contamination = list(found.values())
    report.problems = {"mixed": len(groups), "contaminated": len(found)}
    by_problem = []
    for index, group in enumerate(groups.values()):
        if index in found:
            dropped["contaminated"] += len(group)
            continue
        kept: dict[tuple[int, int], PreferencePair] = {}
        for pair in group:
            key = forms[pair.chosen], forms[pair.rejected]
            reason = "same program" if key in kept else "both sides" if key[0] == key[1] else ""
            dropped[reason] += bool(reason)
            if not reason:
                kept[key] = pair
        reverse = [key for key in kept if key[::-1] in kept]
        dropped["both sides"] += len(reverse)
        left = [pair for key, pair in kept.items() if key not in reverse]
        Random(f"{seed} {group[0].problem_id} {folded(group[0].problem)}").shuffle(left)
        by_problem.append(left[:pairs_per_problem])
        dropped["not sampled"] += len(left)
    made = _finished(by_problem, report)
    dropped["not sampled"] -= len(made)
    report.dropped = {reason: count for reason, count in dropped.items() if reason and count}
    return made, report


def near_miss(pair: PreferencePair) -> bool | None:
    """Whether the rejected side passes at least half of the tests; None if that is unknown."""
    return None if pair.margin is None else pair.margin <= 1 - NEAR_MISS


def _report(
    cap: int | None,
    hard: float | None,
    max_pairs: int | None,
    held_out: float,
    seed: int,
    evaluation: Mapping[str, Sequence[str]] | None,
) -> MiningReport:
    """An empty report with the settings, which are in their ranges."""
    if any(one is not None and one < 1 for one in (cap, max_pairs)):
        raise ConfigError(f"pairs_per_problem is {cap}, max_pairs {max_pairs}: expected whole numbers of at least 1")
    if hard is not None and not 0 <= hard <= 1:
        raise ConfigError(f"hard is {hard}: expected a share in [0, 1]")
    if not 0 <= held_out < 1:
        raise ConfigError(f"held_out is {held_out}: expected a share in [0, 1)")
    settings = {"pairs_per_problem": cap, "hard": hard, "max_pairs": max_pairs, "held_out": held_out, "seed": seed}
    return MiningReport(
        settings={**settings, "evaluation": {name: len(texts) for name, texts in (evaluation or {}).items()}}
    )


def _groups(verdicts: Iterable[Mapping[str, Any]], report: MiningReport, dropped: Counter[str]) -> list[_Group]:
    """The valid programs by problem and side; of a text that comes again the earliest step stays."""
    groups: dict[str, _Group] = {}
    invalid: Counter[str] = Counter()
    rollouts: dict[str, Counter[str]] = defaultdict(Counter)
    keys: dict[tuple[str, str], str] = {}
    for number, row in enumerate(verdicts):
        try:
            text, code, status, passed = row["problem"], row["code"], row["status"], row["passed"]
        except KeyError as error:
            raise DataError(
                f"verdict {number} has no {error}: expected problem, code, status and passed, as `codescaler verify` "
                "writes them"
            ) from None
        if type(passed) is not bool or not isinstance(code, str) or not isinstance(text, str):
            raise DataError(
                f"verdict {number}: problem, code and passed are {text!r:.40}, {code!r:.40} and {passed!r:.40}: "
                "expected two texts and true or false"
            )
        step, source = row.get("step"), row.get("source") or ""
        tests, total = row.get("tests_passed") or 0, row.get("tests_total") or 0
        if not (isinstance(source, str) and all(type(one) is int for one in (step or 0, tests, total))):
            raise DataError(
                f"verdict {number}: tests_passed, tests_total, step and source are {tests!r:.40}, {total!r:.40}, "
                f"{step!r:.40} and {source!r:.40}: expected whole numbers and a text"
            )
        try:
            fault = fault_of(row)
        except DataError as error:
            raise DataError(f"verdict {number}: {error}") from None
        report.rows += 1
        rollouts[source][str(step)] += 1
        if status != Status.OK:
            invalid[status] += 1
            continue
        if fault is not None:
            dropped[f"no verdict: {fault}"] += 1
            continue
        report.in_process += row.get("in_process") is True
        report.comparisons[str(row.get("comparison") or _OWN_COMPARISON)] += 1
        if row.get("flaky"):
            dropped["flaky"] += 1
            continue
        rate = tests / total if total else None
        if not passed and rate is not None:
            if rate >= 1:
                dropped["no passing rate"] += 1
                continue
            report.pass_rates[int(rate * 10)] += 1
        given = problem_id_of(row), text
        if given not in keys:
            keys[given] = problem_key(*given)
        key = keys[given]
        if key not in groups:
            groups[key] = _Group(text, given[0])
        side = groups[key].passing if passed else groups[key].failing
        known = side.get(code)
        if known is None:
            side[code] = _Program(1.0 if passed else rate, step, source)
            continue
        dropped["same program"] += 1
        if step is not None and (known.step is None or step < known.step):
            known.step, known.source = step, source
    report.comparisons = dict(report.comparisons)
    report.invalid = dict(invalid)
    report.rollouts = {source: dict(steps) for source, steps in rollouts.items()}
    return list(groups.values())


def _size(group: _Group) -> int:
    return len(group.passing) + len(group.failing)


def _mixed(groups: list[_Group], dropped: Counter[str]) -> list[_Group]:
    """The problems with programs on both sides."""
    mixed = [group for group in groups if group.passing and group.failing]
    dropped["one side only"] += sum(map(_size, groups)) - sum(map(_size, mixed))
    return mixed


def _drop_same(groups: list[_Group], dropped: Counter[str]) -> None:
    """Leave of programs that are the same, in place, what `mine_pairs` says."""
    forms = distinct_programs(code for group in groups for side in (group.passing, group.failing) for code in side)
    taken: tuple[set[int], set[int]] = set(), set()
    for group in sorted(groups, key=_first_step):
        passing, failing = ({forms[code] for code in side} for side in (group.passing, group.failing))
        contradictory = passing & failing
        for side, elsewhere in zip((group.passing, group.failing), taken, strict=True):
            here: set[int] = set()
            for code in sorted(side, key=lambda code: _order(side[code].step)):
                form = forms[code]
                reason = (
                    "both sides"
                    if form in contradictory
                    else "same program"
                    if form in here
                    else "other problem"
                    if form in elsewhere
                    else ""
                )
                if reason:
                    dropped[reason] += 1
                    del side[code]
                here.add(form)
            elsewhere |= here - contradictory


def _order(step: int | None) -> int:
    return -1 if step is None else step


def _first_step(group: _Group) -> int:
    return min(_order(program.step) for side in (group.passing, group.failing) for program in side.values())


def _pairs_of(group: _Group, cap: int, hard: float | None, rng: Random) -> Iterator[PreferencePair]:
    """At most `cap` pairs of a problem; with `hard`, that share of them with a near miss, as far as there are any."""
    right, wrong = list(group.passing), list(group.failing)
    rng.shuffle(wrong)
    near = [code for code in wrong if (rate := group.failing[code].rate) is not None and rate >= NEAR_MISS]
    pools = [(wrong, cap)]
    if hard is not None:
        far = [code for code in wrong if code not in set(near)]
        wanted = int(cap * hard + rng.random())  # the fraction by chance, so that it holds over many problems
        far_count = min(cap - min(wanted, len(near) * len(right)), len(far) * len(right))
        pools = [(near, cap - far_count), (far, far_count)]
    for pool, count in pools:
        rng.shuffle(right)
        for chosen, rejected in _combined(right, pool, count):
            good, bad = group.passing[chosen], group.failing[rejected]
            steps = [step for step in (good.step, bad.step) if step is not None]
            yield PreferencePair(
                problem=group.text,
                chosen=chosen,
                rejected=rejected,
                kind="rollout",
                problem_id=group.id,
                margin=None if bad.rate is None else round(1 - bad.rate, 6),
                step=max(steps) if steps else None,
                source=", ".join(dict.fromkeys(name for name in (good.source, bad.source) if name)),
            )


def _combined(left: Sequence[_Item], right: Sequence[_Item], count: int) -> Iterator[tuple[_Item, _Item]]:
    """`count` distinct combinations, or all there are, in which each member is used about equally often."""
    if not left or not right:
        return
    period = lcm(len(left), len(right))
    for turn in range(min(count, len(left) * len(right))):
        yield left[(turn + turn // period) % len(left)], right[turn % len(right)]


def _finished(by_problem: list[list[PreferencePair]], report: MiningReport) -> list[PreferencePair]:
    """The pairs under the cap on all, each with its split, in step order; the report is completed."""
    hard, max_pairs, held_out, seed = (report.settings[name] for name in ("hard", "max_pairs", "held_out", "seed"))
    ranked = [(rank, pair) for pairs in by_problem for rank, pair in enumerate(pairs)]
    if max_pairs is not None and len(ranked) > max_pairs:
        ranked = _breadth_first(ranked, max_pairs, hard, Random(f"{seed} max_pairs"))
    texts = list(dict.fromkeys(folded(pair.problem) for _, pair in ranked))
    cluster = clusters(texts)
    report.near_clusters = sorted((size for size in Counter(cluster).values() if size > 1), reverse=True)
    first = dict.fromkeys(cluster, "")
    for text, index in zip(texts, cluster, strict=True):
        first[index] = min(first[index] or text, text)
    drawn = {index: _draw(text, seed) for index, text in first.items()}
    held = {index for index, place in drawn.items() if place < held_out}
    if held_out and len(drawn) > 1:  # of few problems chance may leave a side empty: the nearest one goes there
        if not held:
            held.add(min(drawn, key=drawn.__getitem__))
        elif len(held) == len(drawn):
            held.remove(max(drawn, key=drawn.__getitem__))
    side = {text: "held_out" if index in held else "train" for text, index in zip(texts, cluster, strict=True)}
    pairs = [replace(pair, split=side[folded(pair.problem)]) for _, pair in ranked]
    pairs.sort(key=lambda pair: _order(pair.step))
    report.pairs = len(pairs)
    report.near_misses = sum(near_miss(pair) is True for pair in pairs)
    report.splits = dict(Counter(pair.split for pair in pairs))
    return pairs


def _breadth_first(
    ranked: list[tuple[int, PreferencePair]], count: int, hard: float | None, rng: Random
) -> list[tuple[int, PreferencePair]]:
    """`count` of the pairs, lowest ranks first; with `hard`, that share of near misses as far as there are any."""
    order = sorted(range(len(ranked)), key=lambda index: (ranked[index][0], rng.random()))
    if hard is not None:
        near = [index for index in order if near_miss(ranked[index][1])]
        far = [index for index in order if not near_miss(ranked[index][1])]
        least = count - len(far)
        near_count = max(least, min(len(near), round(hard * count)))
        order = near[:near_count] + far[: count - near_count]
    return [ranked[index] for index in sorted(order[:count])]


def _draw(text: str, seed: int) -> float:
    """A number in [0, 1) that hangs on seed and text alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {text}".encode()).digest()[:8]) / 2**64
