"""More pairs from pairs: each kind on its own switch, each new pair labelled with its kind and confirmed by execution.

Three families. `unaligned` sets another problem's right program against a problem's own (share 0.3 is the paper's:
inferred from the name of its authors' training set, `0.3UnalignedSamples`; whether added or replaced is unknown; here
added). The breaking kinds (`rewrites.BREAKING`) make a wrong program of the right one. The keeping kinds
(`rewrites.KEEPING`) write both programs of a pair anew. All but the unaligned come as pairs of one writer: what is
done to one side is done to the other, so that no style tells the label.

Python only; a pair in another language passes through as it is.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from random import Random
from typing import Any

from codescaler_plugin.data.matching import ProblemIndex
from codescaler_plugin.errors import ConfigError
from codescaler_plugin.execution.executor import CachingExecutor, Executor
from codescaler_plugin.extraction.fingerprint import parse
from codescaler_plugin.extraction.validity import Budget, check
from codescaler_plugin.preference.decontamination import clusters
from codescaler_plugin.preference.mutations import BREAKING, KEEPING, normal, rewrite_both
from codescaler_plugin.records import PreferencePair, Problem, Status, Verdict

UNALIGNED_SHARE = 0.3
"""Inferred, see above."""

KINDS = ("unaligned", *BREAKING, *KEEPING)
DEFAULT_KINDS: Mapping[str, float] = {"unaligned": UNALIGNED_SHARE}

_SPARE = 1.25  # candidates per wanted pair in a round: a fifth of mutants survives their tests
_ROUND = 1024


@dataclass
class AugmentationReport:
    """What became of the candidates of each kind.

    Attributes:
        pairs: given.
        not_python: given pairs that are no Python; nothing is made of them.
        no_tests: given pairs whose problem has no tests here.
        kinds: per kind: `wanted`, `made`, `does not apply`, `still passes` (a mutant that is no negative, nor a
            positive), `broke the right side`, `mended the wrong side`, `flaky`, `no verdict: <fault>` (the tests say
            nothing of one of the two), `repeated`, `unverified` (of those made: kept without a run, see
            `trust_unaligned`).
        executed: programs run.
        settings: of the call.
    """

    pairs: int = 0
    not_python: int = 0
    no_tests: int = 0
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    executed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Candidate:
    pair: PreferencePair
    problem: Problem | None
    keeps: bool  # the wrong side was written anew too


def augment_pairs(
    pairs: Sequence[PreferencePair],
    problems: Iterable[Problem] = (),
    *,
    executor: Executor,
    kinds: Mapping[str, float] = DEFAULT_KINDS,
    seed: int = 0,
    trust_unaligned: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[PreferencePair], AugmentationReport]:
    """The pairs with new ones among them, in the order of their steps, and what became of each kind.

    A new pair has the problem, step, split and source of the pair it is made from, and the pass-rate gap of its own
    two programs. Where too few candidates hold, fewer pairs than wanted are made, and the report says so.

    Args:
        pairs: n pairs.
        problems: with tests; found by `problem_id` (of several with one id by the text too), else by text. Without its
            problem's tests a pair is not augmented.
        executor: gives verdicts.
        kinds: share of n to make of each of `KINDS`, at least 0; a kind that is not named is off.
        seed: the same pairs, kinds and seed give the same candidates.
        trust_unaligned: make `unaligned` pairs also of problems without tests: another problem's program is then
            taken to be wrong without a run, as the paper's data presumably did.
        progress: called with (pairs made so far, pairs wanted).

    Raises:
        ConfigError: an unknown kind or a negative share.
        DataError: a pair whose id and text name different problems.
        SandboxError: no program can be run.
    """
    checked_kinds(kinds)
    settings = {"kinds": dict(kinds), "seed": seed, "trust_unaligned": trust_unaligned}
    report = AugmentationReport(len(pairs), settings=settings)
    index = ProblemIndex(problems, unique_ids=False)
    valid: list[tuple[PreferencePair, Problem | None]] = []
    for pair in pairs:
        problem = index.find(pair.problem_id, pair.problem)
        python = parse(pair.chosen) is not None and parse(pair.rejected) is not None
        report.not_python += not python
        report.no_tests += problem is None
        if python and (problem is not None or trust_unaligned):
            valid.append((pair, problem))
    caching = CachingExecutor(executor)
    made: list[PreferencePair] = []
    total = sum(round(share * len(pairs)) for share in kinds.values())
    known = {(pair.problem, pair.chosen, pair.rejected) for pair in pairs}
    for kind, share in kinds.items():
        wanted = round(share * len(pairs))
        counts: Counter[str] = Counter(wanted=wanted, made=0)
        order = list(valid)
        Random(f"{seed} {kind}").shuffle(order)
        stream = _candidates(kind, order, seed, counts, known)
        while counts["made"] < wanted:
            size = min(_ROUND, int((wanted - counts["made"]) * _SPARE) + 8)
            chunk = [candidate for candidate, _ in zip(stream, range(size), strict=False)]
            if not chunk:
                break
            for candidate, right, wrong in _run(caching, chunk):
                confirmed = _confirmed(candidate, right, wrong, counts)
                if confirmed is not None and counts["made"] < wanted:
                    made.append(confirmed)
                    counts["made"] += 1
                    counts["unverified"] += candidate.problem is None
            if progress is not None:
                progress(len(made), total)
        report.kinds[kind] = {name: count for name, count in counts.items() if count or name in ("wanted", "made")}
    report.executed = caching.executed
    return sorted([*pairs, *made], key=lambda pair: -1 if pair.step is None else pair.step), report


def checked_kinds(kinds: Mapping[str, float]) -> Mapping[str, float]:
    """The shares as given.

    Raises:
        ConfigError: an unknown kind or a negative share.
    """
    for kind, share in kinds.items():
        if kind not in KINDS:
            raise ConfigError(f"unknown kind {kind!r}: expected one of {', '.join(KINDS)}")
        if not 0 <= share < inf:
            raise ConfigError(f"the share of {kind} is {share}: expected a number of at least 0")
    return kinds


def _candidates(
    kind: str,
    order: list[tuple[PreferencePair, Problem | None]],
    seed: int,
    counts: Counter[str],
    known: set[tuple[str, str, str]],
) -> Iterator[_Candidate]:
    """Unconfirmed pairs of a kind, one of each given pair at most."""
    donors = _donors(order) if kind == "unaligned" else {}
    for number, (pair, problem) in enumerate(order):
        rng = Random(f"{seed} {kind} {number}")
        if kind == "unaligned":
            new = _unaligned(pair, donors, rng)
        elif problem is None:
            continue
        else:
            new = _changed(pair, kind, rng)
        if new is None:
            counts["does not apply"] += 1
            continue
        key = new.problem, new.chosen, new.rejected
        if key in known:
            counts["repeated"] += 1
            continue
        known.add(key)
        yield _Candidate(replace(new, kind=kind), problem, kind in KEEPING)


def _donors(order: list[tuple[PreferencePair, Problem | None]]) -> dict[str, Any]:
    """By split: the right programs with the cluster of their problem; and the cluster of each problem's text."""
    texts = list(dict.fromkeys(pair.problem for pair, _ in order))
    cluster = dict(zip(texts, clusters(texts), strict=True))
    pools: dict[str, Any] = {"": cluster}
    for pair, _ in order:
        pools.setdefault(pair.split, []).append((cluster[pair.problem], pair.chosen))
    return pools


def _unaligned(pair: PreferencePair, donors: Mapping[str, Any], rng: Random) -> PreferencePair | None:
    pool: list[tuple[int, str]] = donors[pair.split]
    for _ in range(8):
        cluster, code = rng.choice(pool)
        if cluster != donors[""][pair.problem] and code != pair.chosen:
            return replace(pair, rejected=code)
    return None


def _changed(pair: PreferencePair, kind: str, rng: Random) -> PreferencePair | None:
    if kind in KEEPING:
        chosen, rejected = rewrite_both(kind, pair.chosen, pair.rejected, rng) or (None, None)
    else:
        chosen, rejected = normal(pair.chosen, rng), BREAKING[kind](pair.chosen, rng)
    if chosen is None or rejected is None or chosen == rejected:
        return None
    if any(check(code, "python", Budget())[0] is not Status.OK for code in (chosen, rejected)):
        return None
    return replace(pair, chosen=chosen, rejected=rejected)


def _run(executor: Executor, chunk: list[_Candidate]) -> Iterator[tuple[_Candidate, Verdict | None, Verdict | None]]:
    """Each candidate with the verdicts of its right and its wrong side, None where its problem has no tests."""
    jobs = [(code, one.problem) for one in chunk if one.problem for code in (one.pair.chosen, one.pair.rejected)]
    verdicts = iter(executor.run(jobs))
    for one in chunk:
        yield (one, None, None) if one.problem is None else (one, next(verdicts), next(verdicts))


def _confirmed(
    candidate: _Candidate, right: Verdict | None, wrong: Verdict | None, counts: Counter[str]
) -> PreferencePair | None:
    """The pair with the gap of its verdicts, if they are as claimed."""
    if right is None or wrong is None:
        return replace(candidate.pair, margin=None)
    reason = ""
    if fault := right.fault or wrong.fault:
        reason = f"no verdict: {fault}"
    elif right.flaky or wrong.flaky:
        reason = "flaky"
    elif not right.passed:
        reason = "broke the right side"
    elif wrong.passed:
        reason = "mended the wrong side" if candidate.keeps else "still passes"
    if reason:
        counts[reason] += 1
        return None
    gap = round(1 - wrong.tests_passed / wrong.tests_total, 6) if wrong.tests_total else 0.0
    return replace(candidate.pair, margin=gap or None)  # a program can also fail after its last test
