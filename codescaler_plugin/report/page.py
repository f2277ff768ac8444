"""Pages: sections as one HTML file that needs no network, and as Markdown with the plots beside it."""

import base64
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from codescaler_plugin import __version__
from codescaler_plugin.data.outputs import check_folder, check_output, check_own, write_output, write_text
from codescaler_plugin.extras import require
from codescaler_plugin.report.plots import svg
from codescaler_plugin.report.sections import Fold, Section, Table
from codescaler_plugin.report.templates import template
from codescaler_plugin.safety import html_text, markdown, markdown_block, markdown_table
from codescaler_plugin.text.lines import lines_of


class _Drawn(NamedTuple):
    title: str
    svg: bytes
    name: str

    @property
    def base64(self) -> str:
        return base64.b64encode(self.svg).decode()


def write_page(output: Path, title: str, sections: Sequence[Section], methods: Table) -> tuple[Path, Path]:
    """Write a page as HTML with everything inside, and as Markdown with its plots in a folder; returns the two files.

    They are `output` with other suffixes. `methods` is the last table, which says how the numbers were measured.
    """
    check_page(output)
    page, text = _files(output)
    folder = output.with_name(f"{output.stem}_plots")
    plots = [
        [
            _Drawn(plot.title, svg(plot.draw), f"{folder.name}/{number}_{index}.svg")
            for index, plot in enumerate(section.plots)
        ]
        for number, section in enumerate(sections)
    ]
    write_text(page, _html(title, sections, methods, plots))
    for drawn in (drawn for of_section in plots for drawn in of_section):
        check_folder(folder)
        with write_output(output.parent / drawn.name, binary=True) as file:
            file.write(drawn.svg)
    write_text(text, _markdown(title, sections, methods, plots))
    return page, text


def check_page(output: Path) -> None:
    """Raise what would keep `write_page` from writing, before the work."""
    require("the report", "report", "matplotlib", "jinja2")
    check_folder(output.parent)
    for file in _files(output):
        check_output(file)
        check_own(file, f"codescaler-plugin {__version__.split('.')[0]}.")


def _files(output: Path) -> tuple[Path, Path]:
    return output.with_suffix(".html"), output.with_suffix(".md")


def _html(title: str, sections: Sequence[Section], methods: Table, plots: Sequence[Sequence[_Drawn]]) -> str:
    from markupsafe import Markup

    def unbroken(cell: str) -> Markup:
        """A cell whose interval, or option of a command, stays on one line."""
        held = re.sub(r"\([-+.\d]+ to [-+.\d]+\)", r'<span class="held">\g<0></span>', html_text(cell))
        held = re.sub(r"--[\w-]+", r'<span class="option">\g<0></span>', held)
        return Markup(held)  # noqa: S704 - html_text escapes

    parts = list(zip(sections, plots, strict=True))
    return template("page").render(
        title=title, parts=parts, methods=methods, version=__version__, unbroken=unbroken, lines=lines_of
    )


def _markdown(title: str, sections: Sequence[Section], methods: Table, plots: Sequence[Sequence[_Drawn]]) -> str:
    parts = [f"# {markdown(title)}\n"]
    for section in sections:
        parts += [f"- **{markdown(section.title)}**, {markdown(finding)}" for finding in section.findings]
    parts.append("")
    for section, of_section in zip(sections, plots, strict=True):
        parts += [f"## {markdown(section.title)}\n", section.text + "\n"]
        parts += [f"![{markdown(plot.title)}]({plot.name})\n" for plot in of_section]
        parts += map(_markdown_table, section.tables)
        parts += [part for fold in section.folds for part in _markdown_fold(fold, 3)]
    parts += ["## How it was measured\n", _markdown_table(methods)]
    parts.append(f"codescaler-plugin {__version__}\n")
    return "\n".join(parts)


def _markdown_table(table: Table) -> str:
    caption = f"**{markdown(table.caption)}**\n\n" if table.caption else ""
    return caption + markdown_table(table.head, table.rows, prose=table.prose)


def _markdown_fold(fold: Fold, level: int) -> list[str]:
    """A fold as a heading with everything below it: Markdown has nothing to open and close."""
    parts = [f"{'#' * level} {markdown(fold.title)}\n"]
    if fold.text:
        parts.append(markdown(fold.text) + "\n")
    if fold.code:
        parts.append(markdown_block(fold.code, fold.language))
    return parts + [part for inner in fold.folds for part in _markdown_fold(inner, level + 1)]
