"""Augmentation: new pairs made from existing ones, each labelled with its kind and confirmed by execution.

There are three families of kinds:

- `unaligned`: the rejected program is a right program of another problem. The share 0.3 is inferred from the name of
  the paper's training set, `0.3UnalignedSamples`. Whether its authors added or replaced pairs is unknown; here they
  are added.
- breaking (`mutations.BREAKING`): the rejected program is a mutant of the chosen one.
- preserving (`mutations.PRESERVING`): both programs are rewritten, and the label stays.

Except for `unaligned`, both sides get the same edits, so that style does not predict the label. Only Python is
augmented; pairs in other languages are returned unchanged.
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
from codescaler_plugin.preference.mining_rules import step_order
from codescaler_plugin.preference.mutations import BREAKING, PRESERVING, mutate_both, normalized
from codescaler_plugin.records import PreferencePair, Problem, Status, Verdict

KINDS = ("unaligned", *BREAKING, *PRESERVING)
DEFAULT_KINDS: Mapping[str, float] = {"unaligned": 0.3}

_SPARE = 1.25  # candidates per missing pair in a round: a fifth of mutants survives its tests
_ROUND = 1024


@dataclass
class AugmentationReport:
    """Counts of the pairs that augmentation tried, made and dropped.

    Attributes:
        pairs: input pairs.
        not_python: input pairs that are not Python. They are not augmented.
        no_tests: input pairs whose problem has no tests here.
        kinds: counts by kind. `wanted`: pairs asked for. `made`: pairs made. `does not apply`: the kind cannot change
            the program. `still passes`: a mutant that passes all tests. `chosen fails`, `rejected passes`: a
            preserving mutation that changed the result of one side. `flaky`: passed once, then failed.
            `no verdict: <fault>`: the tests did not decide on one side. `repeated`: the pair exists already.
            `unverified`: pairs made without a run, see `trust_unaligned`.
        executed: programs run.

    Example:
        >>> from codescaler_plugin.testing import FakeExecutor
        >>> pairs = [PreferencePair("Add.", "x = 1", "x = 2", "rollout")]
        >>> _, report = augment_pairs(pairs, executor=FakeExecutor({}), kinds={"stub": 1.0})
        >>> report.no_tests, report.kinds
        (1, {'stub': {'wanted': 1, 'made': 0}})
    """

    pairs: int = 0
    not_python: int = 0
    no_tests: int = 0
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    executed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


_Candidate = tuple[PreferencePair, Problem | None]  # without a problem, the pair has no tests


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
    r"""Add new pairs to existing ones: all pairs in the order of their steps, and a report.

    A new pair takes problem, step, split and source from the pair that it is made from. Its margin is the gap of the
    pass rates of its own two programs. If too few candidates are confirmed, fewer pairs than asked for are made.

    Args:
        pairs: n pairs.
        problems: problems with tests. A pair finds its problem by `problem_id`, by its text where several have that
            id, and by its text alone where it has no id. A pair without tests is not augmented.
        executor: executor that gives the verdicts.
        kinds: kind of `KINDS` -> pairs to make, as a share of n, at least 0. The default is 0.3 of `unaligned`.
        seed: seed of all draws. The same pairs, kinds and seed give the same candidates.
        trust_unaligned: whether `unaligned` pairs are made without a run for problems without tests. A program of
            another problem is then assumed to be wrong, as presumably in the paper's data.
        progress: called with (pairs made so far, pairs asked for).

    Raises:
        ConfigError: an unknown kind or a negative share.
        DataError: a pair whose id and text name different problems.
        SandboxError: no program can be run.

    Example:
        >>> from codescaler_plugin.testing import FakeExecutor
        >>> problem = Problem("p", "Add one.", ())
        >>> pair = PreferencePair("Add one.", "def f(n): return n + 1", "def f(n): return n", "rollout", "p")
        >>> executor = FakeExecutor(lambda code, problem: "n + 1" in code)
        >>> pairs, _ = augment_pairs([pair], [problem], executor=executor, kinds={"operator": 1.0})
        >>> pairs[1].kind, pairs[1].rejected
        ('operator', 'def f(n):\n    return n - 1\n')
    """
    checked_kinds(kinds)
    settings = {"kinds": dict(kinds), "seed": seed, "trust_unaligned": trust_unaligned}
    report = AugmentationReport(len(pairs), settings=settings)
    index = ProblemIndex(problems, unique_ids=False)
    valid: list[_Candidate] = []
    for pair in pairs:
        problem = index.find(pair.problem_id, pair.problem)
        is_python = parse(pair.chosen) is not None and parse(pair.rejected) is not None
        report.not_python += not is_python
        report.no_tests += problem is None
        if is_python and (problem is not None or trust_unaligned):
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
            for (pair, problem), verdicts in _run(caching, chunk):
                confirmed = _confirmed(pair, verdicts, counts)
                if confirmed is not None and counts["made"] < wanted:
                    made.append(confirmed)
                    counts["made"] += 1
                    counts["unverified"] += problem is None
            if progress is not None:
                progress(len(made), total)
        report.kinds[kind] = {name: count for name, count in counts.items() if count or name in ("wanted", "made")}
    report.executed = caching.executed
    return sorted([*pairs, *made], key=lambda pair: step_order(pair.step)), report


def checked_kinds(kinds: Mapping[str, float]) -> Mapping[str, float]:
    """The kinds; a ConfigError if one is unknown or its share is negative."""
    for kind, share in kinds.items():
        if kind not in KINDS:
            raise ConfigError(f"unknown kind {kind!r}: expected one of {', '.join(KINDS)}")
        if not 0 <= share < inf:
            raise ConfigError(f"the share of {kind} is {share}: expected a number of at least 0")
    return kinds


def _candidates(
    kind: str, order: list[_Candidate], seed: int, counts: Counter[str], known: set[tuple[str, str, str]]
) -> Iterator[_Candidate]:
    """Unconfirmed pairs of a kind, at most one from each pair."""
    donors = _Donors([pair for pair, _ in order]) if kind == "unaligned" else None
    for index, (pair, problem) in enumerate(order):
        rng = Random(f"{seed} {kind} {index}")
        if donors is not None:
            new = donors.unaligned(pair, rng)
        elif problem is None:
            continue
        else:
            new = _mutated(pair, kind, rng)
        if new is None:
            counts["does not apply"] += 1
            continue
        key = new.problem, new.chosen, new.rejected
        if key in known:
            counts["repeated"] += 1
            continue
        known.add(key)
        yield replace(new, kind=kind), problem


class _Donors:
    """The chosen programs by split, each with the cluster of its problem's text."""

    def __init__(self, pairs: list[PreferencePair]) -> None:
        texts = list(dict.fromkeys(pair.problem for pair in pairs))
        self.cluster = dict(zip(texts, clusters(texts), strict=True))
        self.programs: dict[str, list[tuple[int, str]]] = {}
        for pair in pairs:
            self.programs.setdefault(pair.split, []).append((self.cluster[pair.problem], pair.chosen))

    def unaligned(self, pair: PreferencePair, rng: Random) -> PreferencePair | None:
        """The pair with another problem's program as its rejected side. None: eight draws found no such program."""
        for _ in range(8):
            cluster, code = rng.choice(self.programs[pair.split])
            if cluster != self.cluster[pair.problem] and code != pair.chosen:
                return replace(pair, rejected=code)
        return None


def _mutated(pair: PreferencePair, kind: str, rng: Random) -> PreferencePair | None:
    """The pair after a mutation. None: the kind does not apply to it."""
    chosen: str | None
    rejected: str | None
    if kind in PRESERVING:
        chosen, rejected = mutate_both(kind, pair.chosen, pair.rejected, rng) or (None, None)
    else:
        chosen, rejected = normalized(pair.chosen, rng), BREAKING[kind](pair.chosen, rng)
    if chosen is None or rejected is None or chosen == rejected:
        return None
    if any(check(code, "python", Budget())[0] is not Status.OK for code in (chosen, rejected)):
        return None
    return replace(pair, chosen=chosen, rejected=rejected)


def _run(executor: Executor, chunk: list[_Candidate]) -> Iterator[tuple[_Candidate, tuple[Verdict, ...]]]:
    """Each candidate with the verdicts on its chosen and its rejected side, or none without tests."""
    tested = [(pair, problem) for pair, problem in chunk if problem is not None]
    jobs = [(code, problem) for pair, problem in tested for code in (pair.chosen, pair.rejected)]
    verdicts = iter(executor.run(jobs))
    for pair, problem in chunk:
        yield (pair, problem), () if problem is None else (next(verdicts), next(verdicts))


def _confirmed(pair: PreferencePair, verdicts: tuple[Verdict, ...], counts: Counter[str]) -> PreferencePair | None:
    """The pair with its margin. None, and counted: the verdicts are not those that its kind claims."""
    if not verdicts:
        return replace(pair, margin=None)
    chosen, rejected = verdicts
    reason = ""
    if fault := chosen.fault or rejected.fault:
        reason = f"no verdict: {fault}"
    elif chosen.flaky or rejected.flaky:
        reason = "flaky"
    elif not chosen.passed:
        reason = "chosen fails"
    elif rejected.passed:
        reason = "rejected passes" if pair.kind in PRESERVING else "still passes"
    if reason:
        counts[reason] += 1
        return None
    gap = round(1 - rejected.tests_passed / rejected.tests_total, 6) if rejected.tests_total else 0.0
    return replace(pair, margin=gap or None)  # a program can also fail after its last test
