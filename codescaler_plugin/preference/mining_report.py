"""The counts of what mining read, dropped and made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from codescaler_plugin.preference.decontamination import Contamination


@dataclass
class MiningReport:
    """Counts of what mining read, dropped and made. Every row is in a pair or counted under one reason.

    Attributes:
        rows: rows read.
        invalid: rows without a valid program, by status.
        dropped: programs by reason; for given pairs, pairs by reason.
            `no verdict: <fault>`: the tests did not decide. `flaky`: passed once, then failed.
            `no passing rate`: failed although all tests passed. `same program`: duplicate on the same side of the
            problem. `both sides`: the program passes and fails. `other problem`: duplicate on the same side of another
            problem. `contaminated`: the problem is in an evaluation set. `one side only`: the problem has no program
            on the other side. `not sampled`: over a cap. A rule of the caller adds its own reason.
        problems: problems by what their programs allow: `mixed`, `all pass`, `all fail`; and `contaminated`, those of
            the mixed ones that were removed.
        contamination: removed problems with their match in an evaluation set.
        near_clusters: sizes of the groups of nearly identical problem texts, largest first; single problems left out.
        rollouts: rows by source, then by step.
        pass_rates: failing programs by tenths of the tests that they pass; programs of unknown rate are left out.
        in_process: rows graded in the program's own process, where a program can deceive its tests.
        comparisons: rows with a verdict, by the comparison of results. `scripts`: tests that compare by themselves.
        near_misses: pairs whose rejected side passes at least half of the tests.

    Example:
        >>> from codescaler_plugin import mine_pairs
        >>> row = {"problem": "Add.", "status": "ok"}
        >>> _, report = mine_pairs([row | {"code": "x = 1", "passed": True}, row | {"code": "x = 2", "passed": True}])
        >>> report.dropped, report.problems["all pass"]
        ({'one side only': 2}, 1)
        >>> report.why_no_pairs().partition(":")[0]
        'a pair needs a problem with a program that passes and one that fails'
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
    comparisons: dict[str, int] = field(default_factory=dict)
    pairs: int = 0
    near_misses: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count dropped programs (or given pairs) under a reason."""
        if count:
            add_count(self.dropped, reason, count)

    def why_no_pairs(self) -> str:
        """Why no pair was made, and the next step. If several causes apply, the one that removed the last pairs."""
        contaminated = self.problems.get("contaminated", 0)
        mixed = self.problems.get("mixed", 0)
        if contaminated and contaminated == mixed:
            names = ", ".join(sorted({match.evaluation for match in self.contamination}))
            return (
                f"all {contaminated} problems that allow a pair are contaminated: they are in {names}. Give rollouts "
                "of other problems, or leave `evaluation=` out"
            )
        faults = {reason: count for reason, count in self.dropped.items() if reason.startswith("no verdict: ")}
        if faults and sum(faults.values()) + sum(self.invalid.values()) == self.rows:
            return (
                f"the tests gave no verdict on any program ({_listed(faults)}): run codescaler verify again, which "
                "says what to do about each of these"
            )
        if self.rows and sum(self.invalid.values()) == self.rows:
            return (
                f"none of {self.rows:,} rows holds a valid program ({_listed(self.invalid)}): codescaler extract "
                "says why"
            )
        if not mixed:
            return (
                "a pair needs a problem with a program that passes and one that fails: "
                f"{self.problems.get('all pass', 0):,} problems have none that fails, "
                f"{self.problems.get('all fail', 0):,} none that passes"
            )
        return f"all programs were dropped ({_listed(self.dropped)})"


def add_count(counts: dict[str, int], name: str, count: int = 1) -> None:
    """Add to a count by name."""
    counts[name] = counts.get(name, 0) + count


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
