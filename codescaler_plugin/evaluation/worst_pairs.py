"""The pairs that a reward model gets most wrong, and what may have misled it."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import islice, takewhile

from codescaler_plugin.preference.mutations import BREAKING, PRESERVING
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.report.sections import Fold
from codescaler_plugin.safety import one_line
from codescaler_plugin.text.lines import lines_of

SHOWN = 10
PROBLEM_CHARS = 300
DIFF_LINES, LINE_CHARS = 60, 160
_CONTEXT = 3  # equal lines around a change, as in `diff -u`
_COMPARED = 300  # lines of a program, from the first difference: lines that repeat make a comparison cubic in them
_SAME_LENGTH = 0.05


@dataclass(frozen=True)
class WorstPair:
    """A pair whose wrong program scores above its right one.

    Attributes:
        problem: text of the problem on one line, cut to 300 characters.
        problem_id: `PreferencePair.problem_id`.
        kind: `PreferencePair.kind`.
        chosen_score: raw score of the right program.
        rejected_score: raw score of the wrong program.
        chosen_characters: length of the right program.
        rejected_characters: length of the wrong program.
        margin: `PreferencePair.margin`, pass rate of the right program minus that of the wrong one.
        changed_lines: lines in which the programs differ, the larger of those taken out and put in; of 300 from the
            first difference.
        shared_lines: lines that are equal in both, in order; of the same, and those before.
        shallow_agrees: the rule fitted on length and style puts the wrong program first, too.
        diff: unified diff from the wrong to the right program, cut to 60 lines of 160 characters. It holds one program
            after the other if they share less than half of their lines.

    Example:
        >>> pair = worst_pair(PreferencePair("Add.", "return a + b", "return a - b", "operator"), 0.5, 2.0, False)
        >>> pair.gap, pair.reason
        (1.5, 'The mutation “operator” broke it. They differ in one line. Their lengths are equal.')
    """

    problem: str
    problem_id: str
    kind: str
    chosen_score: float
    rejected_score: float
    chosen_characters: int
    rejected_characters: int
    margin: float | None
    changed_lines: int
    shared_lines: int
    shallow_agrees: bool
    diff: str

    @property
    def gap(self) -> float:
        """Score of the wrong program minus that of the right one, above 0."""
        return self.rejected_score - self.chosen_score

    @property
    def reason(self) -> str:
        """Sentences of what may have misled the model. They are facts of the pair, not a measured cause."""
        origins = {kind: f"The mutation “{kind}” broke it." for kind in BREAKING}
        origins |= {kind: f"Both programs were edited by “{kind}”, which changes style alone." for kind in PRESERVING}
        origins["unaligned"] = "The wrong program solves another problem."
        sentences = [origins.get(self.kind, ""), self._difference(), self._length(), self._pass_rate()]
        if self.shallow_agrees:
            sentences.append("A rule fitted on length and style makes the same mistake.")
        return " ".join(filter(None, sentences))

    def _difference(self) -> str:
        if not self.changed_lines:
            return "Their lines are equal."
        if self.changed_lines == 1:
            return "They differ in one line."
        if self.shared_lines < self.changed_lines:
            return "They have little in common."
        return f"They differ in {self.changed_lines:,} lines."

    def _length(self) -> str:
        right, wrong = self.chosen_characters, self.rejected_characters
        if right == wrong:
            return "Their lengths are equal."
        sizes = f"{wrong:,} against {right:,} characters"
        if abs(wrong - right) <= _SAME_LENGTH * max(wrong, right):
            return f"They are about as long: {sizes}."
        return f"The wrong one is {'longer' if wrong > right else 'shorter'}: {sizes}."

    def _pass_rate(self) -> str:
        if self.margin is None or not 0 < self.margin < 1:
            return ""
        return f"The wrong one passes {1 - self.margin:.0%} of the tests."


def worst_pair(pair: PreferencePair, chosen_score: float, rejected_score: float, shallow_agrees: bool) -> WorstPair:
    """The record of a pair, with its texts cut."""
    right, wrong = lines_of(pair.chosen), lines_of(pair.rejected)
    equal = sum(1 for _ in takewhile(lambda lines: lines[0] == lines[1], zip(right, wrong, strict=False)))
    start = max(0, equal - _CONTEXT)
    right, wrong = right[start : start + _COMPARED], wrong[start : start + _COMPARED]
    matcher = SequenceMatcher(None, wrong, right, autojunk=False)
    changes = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    removed = sum(end - begin for _, begin, end, _, _ in changes)
    changed, shared = max(removed, sum(end - begin for *_, begin, end in changes)), start + len(wrong) - removed
    return WorstPair(
        problem=one_line(pair.problem, PROBLEM_CHARS),
        problem_id=one_line(pair.problem_id),
        kind=one_line(pair.kind),
        chosen_score=chosen_score,
        rejected_score=rejected_score,
        chosen_characters=len(pair.chosen),
        rejected_characters=len(pair.rejected),
        margin=pair.margin,
        changed_lines=changed,
        shared_lines=shared,
        shallow_agrees=shallow_agrees,
        diff=_diff(wrong, right, None if shared < changed else matcher, start),
    )


def _diff(wrong: Sequence[str], right: Sequence[str], matcher: SequenceMatcher[str] | None, above: int) -> str:
    """The diff by a matcher, or without one the two programs one after the other; `above` lines are not among them."""
    lines = ["--- wrong", "+++ right"]
    if matcher is None:
        lines += [f"-{line}" for line in wrong] + [f"+{line}" for line in right]
    else:
        for group in matcher.get_grouped_opcodes(_CONTEXT):
            lines.append(f"@@ line {above + group[0][1] + 1} @@")
            for tag, start, end, start_right, end_right in group:
                if tag == "equal":
                    lines += [f" {line}" for line in wrong[start:end]]
                else:
                    lines += [f"-{line}" for line in wrong[start:end]]
                    lines += [f"+{line}" for line in right[start_right:end_right]]
    shown = [line if len(line) <= LINE_CHARS else line[: LINE_CHARS - 1] + "…" for line in islice(lines, DIFF_LINES)]
    if len(lines) > DIFF_LINES:
        shown.append(f"… {len(lines) - DIFF_LINES:,} more lines")
    return "\n".join(shown)


def worst_pairs_fold(model: str, worst: Sequence[WorstPair]) -> Fold:
    """The worst pairs of a model, each with its problem, its scores, its reason and its diff."""
    if not worst:
        return Fold(f"{model}: no wrong program scores above its right one")
    folds = [
        Fold(
            f"{number}. {pair.problem_id or pair.problem[:60]}: wrong {pair.rejected_score:+.2f}, "
            f"right {pair.chosen_score:+.2f} ({pair.kind})",
            f"{pair.reason} The problem: {pair.problem}",
            pair.diff,
            "diff",
        )
        for number, pair in enumerate(worst, 1)
    ]
    title = "the pair that it gets" if len(worst) == 1 else f"the {len(worst)} pairs that it gets"
    return Fold(f"{model}: {title} most wrong, and why that may be", folds=folds)
