"""A page of judged completions: per problem its completions with the program marked, and why each has its status."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from codescaler_plugin import __version__
from codescaler_plugin.data.columns import Bad, Columns
from codescaler_plugin.data.outputs import check_output, check_own, write_text
from codescaler_plugin.errors import DataError
from codescaler_plugin.extras import require
from codescaler_plugin.notebook import cut
from codescaler_plugin.report.judged_rows import Judged, read_judged, text_of
from codescaler_plugin.report.marking import Part, parts_of, read_again
from codescaler_plugin.report.templates import template
from codescaler_plugin.text.messages import problem_text

MAX_PROBLEMS = 40
"""Problems of a page."""
MAX_COMPLETIONS = 16
"""Completions of a problem on a page."""
STRANGEST = 10
"""Completions that a page sets apart because score and tests disagree."""

_PROBLEM_CHARS = 4_000
_FAILURE, _UNREAD = "failure", "unread"


@dataclass(frozen=True)
class Card:
    """A completion on a page."""

    judged: Judged
    parts: Sequence[Part]
    rank: str = ""  # within its group
    note: str = ""  # why it is set apart
    link: str = ""  # id of its problem on the page, if that is shown
    problem: str = ""  # its text, where the card stands apart from it

    @property
    def label(self) -> str:
        """Its status, or that it has none or no reward."""
        return label_of(self.judged)


@dataclass(frozen=True)
class Group:
    """The completions of a problem on a page."""

    problem: str
    name: str
    cards: Sequence[Card]
    left_out: int = 0  # completions of the problem that are not on the page

    @property
    def labels(self) -> str:
        """The filters that show any of its cards."""
        return " ".join(sorted({f"has-{word}" for card in self.cards for word in filters_of(card.judged)}))


@dataclass(frozen=True)
class _Light:
    """What is kept of each row of a file, so that a large one fits into memory."""

    index: int
    label: str
    score: float | None
    passed: bool | None


def write_judgements(
    inputs: Sequence[Path],
    output: Path,
    *,
    title: str = "Judgements",
    columns: Columns | None = None,
    on_bad: Bad | None = None,
) -> tuple[Path, int]:
    r"""Write judged completions as one HTML page that needs no network and no script; returns it and their number.

    The counts and the strangest completions are of all rows. Of a large file the page shows the first `MAX_PROBLEMS`
    problems, of each the `MAX_COMPLETIONS` best, and of long texts the part around the program; it says what it leaves
    out. A program that is not in the row is extracted from the completion again, and taken if the status is the same.

    Args:
        inputs: files of `codescaler score`, `verify` or `rank`, or of TRL's completions table.
        output: the page.
        title: heading of the page.
        columns: see `data.columns.renamed`.
        on_bad: called with a message about each row that cannot be read. The default raises it.

    Raises:
        ConfigError: a column of `columns` is not there; or the output cannot be written, is an input, or is a file
            of another program.
        DataError: no row, or one that cannot be read.
        MissingExtraError: jinja2 is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "judged.jsonl")
        ...     _ = file.write_text('{"problem": "p", "completion": "No.", "status": "no_block", "score": null}\n')
        ...     page, count = write_judgements([file], Path(folder, "judged.html"))
        >>> page.name, count
        ('judged.html', 1)
    """
    require("the report", "report", "jinja2")
    for source in inputs:
        check_output(output, [source])
    check_own(output, f"codescaler-plugin {__version__.split('.')[0]}.")
    groups: dict[bytes, list[_Light]] = {}
    for index, judged in enumerate(read_judged(inputs, on_bad, columns)):
        groups.setdefault(_key(judged), []).append(_Light(index, label_of(judged), judged.score, judged.passed))
    rows = [row for group in groups.values() for row in group]
    if not rows:
        raise DataError("no judged completion in the input")
    shown = [_by_rank(group)[:MAX_COMPLETIONS] for group in list(groups.values())[:MAX_PROBLEMS]]
    strange, is_whole_file = _strangest(list(groups.values()))
    needed = {row.index for group in shown for row in group} | {row.index for row, _ in strange}
    texts = {index: one for index, one in enumerate(read_judged(inputs, lambda _: None, columns)) if index in needed}
    ranks = {row.index: rank for group in groups.values() for row, rank in zip(group, ranks_of(group), strict=True)}

    def card(row: _Light, note: str = "", link: str = "") -> Card:
        judged = read_again(texts[row.index])
        return Card(judged, parts_of(judged), ranks[row.index], note, link, _cut(judged.problem) if note else "")

    links = {row.index: f"p{number}" for number, group in enumerate(shown, 1) for row in group}
    sections = [
        Group(
            _cut(texts[group[0].index].problem),
            texts[group[0].index].group,
            [card(row) for row in group],
            len(all_) - len(group),
        )
        for group, all_ in zip(shown, groups.values(), strict=False)
    ]
    notes = _left_out(len(groups), len(rows), sections)
    if strange and is_whole_file:
        notes.append("No problem has both a passed and a failed program: the strangest are told by all programs.")
    facts = [("completions", f"{len(rows):,}"), ("problems", f"{len(groups):,}")]
    page = render(
        title,
        facts,
        rows,
        sections,
        strange=[card(row, note, links.get(row.index, "")) for row, note in strange],
        notes=notes,
    )
    write_text(output, page)
    return output, len(rows)


def render(
    title: str,
    facts: Sequence[tuple[str, str]],
    rows: Iterable[Judged | _Light],
    groups: Sequence[Group],
    *,
    strange: Sequence[Card] = (),
    notes: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
) -> str:
    """The page as HTML. `rows` are what it counts, `links` are addresses by their names.

    Example:
        >>> judged = Judged("Add.", "I <b>cannot</b>.", "no_block")
        >>> "I &lt;b&gt;cannot" in render("t", [], [judged], [Group("Add.", "", [Card(judged, parts_of(judged))])])
        True
    """
    statuses, tests = Counter[str](), Counter[str]()
    for row in rows:
        statuses[row.label if isinstance(row, _Light) else label_of(row)] += 1
        if row.passed is not None:
            tests["passed" if row.passed else "failed"] += 1
    page: str = template("judgements").render(
        title=title,
        facts=facts,
        counts=[*statuses.most_common(), *sorted(tests.items(), reverse=True)],
        total=statuses.total(),
        groups=groups,
        strange=Group("", "", strange) if strange else None,
        notes=notes,
        links=links or {},
        filters_of=filters_of,
        version=__version__,
    )
    return page


def label_of(judged: Judged) -> str:
    """The status of a completion, `failure` if its judgement failed, `unread` if neither is known."""
    return _FAILURE if judged.failure else judged.status or _UNREAD


def filters_of(judged: Judged) -> list[str]:
    """The names of the filters that show a completion: its label, and `passed` or `failed`."""
    verdict = [] if judged.passed is None else ["passed" if judged.passed else "failed"]
    return [label_of(judged), *verdict]


def ranks_of(group: Sequence[Judged | _Light]) -> list[str]:
    """The rank of each completion in its group by score, as `2 of 8`; equal scores share a rank. Empty if unscored.

    Example:
        >>> ranks_of([Judged("p", "", "ok", score=score) for score in (1.0, 2.0, 1.0, None)])
        ['2 of 4', '1 of 4', '2 of 4', '']
    """
    scores = sorted((row.score for row in group if row.score is not None), reverse=True)
    first = {score: rank for rank, score in reversed(list(enumerate(scores, 1)))}
    return ["" if row.score is None else f"{first[row.score]} of {len(group)}" for row in group]


def group_of(judged: Sequence[Judged], problem: str, name: str = "") -> Group:
    """The group of a problem's completions, all of which are shown, in the order given."""
    cards = [
        Card(again, parts_of(again), rank)
        for one, rank in zip(judged, ranks_of(judged), strict=True)
        for again in [read_again(one)]
    ]
    return Group(_cut(problem), name, cards)


def _key(judged: Judged) -> bytes:
    """The same for all completions of a group, in few bytes."""
    text = f"{judged.group}\0{judged.problem}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).digest()


def _by_rank(group: Sequence[_Light]) -> list[_Light]:
    return sorted(group, key=lambda row: (row.score is None, -(row.score or 0.0), row.index))


def _strangest(groups: Sequence[Sequence[_Light]]) -> tuple[list[tuple[_Light, str]], bool]:
    """The completions on which score and tests disagree most, each with a sentence; whether all rows are one group.

    How strange a failed program is: the logits by which its score is above the mean of the passed programs of its
    problem; and the other way round. If no problem has programs of both, all programs of the file are compared.
    """
    found = [one for group in groups for one in _surprises(group, "its problem's")]
    verdicts = [{row.passed for row in group if row.score is not None} for group in groups]
    is_whole_file = not any({True, False} <= of_group for of_group in verdicts)
    if is_whole_file:
        found = _surprises([row for group in groups for row in group], "all")
    found.sort(key=lambda one: -one[0])
    return [(row, note) for _, row, note in found[:STRANGEST]], is_whole_file


def _surprises(group: Sequence[_Light], whose: str) -> list[tuple[float, _Light, str]]:
    scores: dict[bool, list[float]] = defaultdict(list)
    for row in group:
        if row.score is not None and row.passed is not None:
            scores[row.passed].append(row.score)
    if len(scores) < 2:
        return []
    means = {passed: fmean(values) for passed, values in scores.items()}
    found = []
    for row in group:
        if row.score is None or row.passed is None:
            continue
        gap = (means[False] - row.score) if row.passed else (row.score - means[True])
        if gap > 0:
            own, other, side = ("passed", "failed", "below") if row.passed else ("failed", "passed", "above")
            note = f"It {own}, and scores {gap:.2f} {side} the mean of {whose} {other} programs."
            found.append((gap, row, note))
    return found


def _left_out(problems: int, rows: int, sections: Sequence[Group]) -> list[str]:
    shown = sum(len(group.cards) for group in sections)
    if shown == rows:
        return []
    return [
        f"Shown are {shown:,} of {rows:,} completions: the first {len(sections):,} of {problems:,} problems, "
        f"of each at most {MAX_COMPLETIONS} completions, the best first. "
        f"{rows - shown:,} are left out. The counts are of all."
    ]


def _cut(prompt: str) -> str:
    """The problem in a prompt, without its template, in bounded length."""
    return cut(text_of(prompt, problem_text).strip("\n"), _PROBLEM_CHARS)
