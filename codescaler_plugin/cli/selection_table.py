"""The table of one problem's candidates: `codescaler rank --show`."""

from typing import TYPE_CHECKING, Any, TextIO

from codescaler_plugin.cli.terminal import Terminal
from codescaler_plugin.safety import printable
from codescaler_plugin.selection.records import Ranked, Selection

if TYPE_CHECKING:
    from codescaler_plugin.pipeline import CodeScaler

_SHOWN = 12  # candidates in the table


def show_selection(problem: Any, selection: Selection, scaler: "CodeScaler", sink: TextIO) -> None:
    """Print a problem, its candidates and the best program."""
    from rich import box
    from rich.panel import Panel
    from rich.syntax import Syntax
    from rich.table import Table
    from rich.text import Text

    from codescaler_plugin.text.messages import problem_text

    console = Terminal(file=sink)
    text = Text(problem_text(problem, "problem", scaler.template).strip())
    console.print(Panel(text, title="problem", title_align="left", box=box.ROUNDED))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("")
    for name in ("candidate", "score", "rank_score", "duplicates"):
        table.add_column(name, justify="right")
    table.add_column("what it is", ratio=1)
    is_tested = any(candidate.verdict is not None for candidate in selection.ranked)
    leaders = [candidate for candidate in selection.ranked if candidate.duplicate_of is None]
    for candidate in leaders[:_SHOWN]:
        is_best = candidate is selection.best
        table.add_row(
            "▶" if is_best else "",
            str(candidate.index),
            "" if candidate.judgement.score is None else f"{candidate.judgement.score:.4f}",
            "" if candidate.rank_score is None else f"{candidate.rank_score:.4f}",
            str(candidate.duplicates or ""),
            Text(_kind(candidate, is_tested=is_tested), overflow="ellipsis", no_wrap=True),
            style="bold green" if is_best else "",
        )
    console.print(table)
    if len(leaders) > _SHOWN:
        console.print(f"and {len(leaders) - _SHOWN} more\n", style="dim")
    if selection.best is not None:
        code = printable(selection.best.judgement.code.rstrip())  # before the highlighter splits it
        syntax = Syntax(code, scaler.config.language, theme="ansi_dark", word_wrap=True)
        title = f"candidate {selection.best.index}"
        console.print(Panel(syntax, title=title, title_align="left", border_style="green", box=box.ROUNDED))
    console.print(f"{selection.outcome}: {selection.explanation}")


def _kind(candidate: Ranked, *, is_tested: bool) -> str:
    """The verdict, or why there is none, or the first line of the code."""
    judgement, verdict = candidate.judgement, candidate.verdict
    if judgement.status != "ok":
        return str(judgement.status)
    if verdict is not None and verdict.fault is not None:
        return f"no verdict ({verdict.fault}): {verdict.detail}"
    if verdict is not None:
        return "passes all tests" if verdict.passed else verdict.detail
    if is_tested:
        return "not run"
    lines = [line.strip() for line in judgement.code.splitlines()]
    return next((line for line in lines if line and not line.startswith(("#", "import ", "from "))), "")
