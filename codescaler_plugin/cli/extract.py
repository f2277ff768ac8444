"""`codescaler extract`."""

import io
from collections import Counter
from typing import Annotated, Any, TextIO

from rich.bar import Bar
from typer import Exit, FileBinaryRead, Option

from codescaler_plugin.cli.options import Extraction, Output, Source, Strict
from codescaler_plugin.cli.rows import chunks, write_records
from codescaler_plugin.cli.terminal import errors, number_table, open_output, reported
from codescaler_plugin.errors import DataError
from codescaler_plugin.safety import printable
from codescaler_plugin.text.messages import begun_text, completion_text


def extract(
    source: Source = "-",  # type: ignore[assignment]
    language: Annotated[str, Option(help="Language of the code, or 'any'.")] = "python",
    extraction: Extraction = "single",
    explain: Annotated[bool, Option(help="Add a sentence on the reason of each status.")] = False,
    reasoning_marks: Annotated[
        str | None, Option(help="Further marks of reasoning, such as '<plan> </plan>'.")
    ] = None,
    thinking_prefilled: Annotated[
        bool, Option("--thinking-prefilled", help="The prompts open the reasoning.")
    ] = False,
    fence_prefilled: Annotated[bool, Option("--fence-prefilled", help="The prompts open the fence.")] = False,
    text: Annotated[bool, Option("--text", help="FILE is one completion; print its code.")] = False,
    output: Output = None,
    strict: Strict = False,
) -> None:
    """Take the code out of completions, without a model.

    JSONL in with `completion`; the same lines out with code, language and
    status, which replace fields of these names. A `prompt` or `problem` beside
    the completion tells if the prompt opens the reasoning or a fence. A
    histogram of the statuses follows on stderr. A bad line is reported with its
    number on stderr and skipped.

    Example: codescaler extract answers.jsonl --explain

    Exit code: 0 all lines read; 1 an error, with --strict a bad line, with
    --text no valid code; 3 some lines were skipped.
    """
    from codescaler_plugin.extraction import extract_all, extract_code

    settings: dict[str, Any] = {
        "language": language,
        "extraction": extraction,
        "reasoning_marks": reasoning_marks,
        "thinking_prefilled": thinking_prefilled,
        "fence_prefilled": fence_prefilled,
    }
    with reported(), open_output(output, [source]) as sink:
        if text:
            _print_code(source, sink, settings)
            return
        extract_code("", **settings)  # a wrong setting is an error before the first line
        counts: Counter[str] = Counter()
        is_complete = True
        for rows, count in chunks(source, ("completion",), "extracting", strict=strict):
            texts = [_completion(row, reasoning_marks) for row in rows]
            extractions = extract_all(texts, **settings)
            write_records(sink, rows, extractions, leave_out=() if explain else ("explanation",))
            counts.update(str(extraction.status) for extraction in extractions)
            is_complete &= len(rows) == count
        _print_histogram(counts)
    if not is_complete:
        raise Exit(3)


def _print_code(source: FileBinaryRead, sink: TextIO, settings: dict[str, Any]) -> None:
    """Print the code of a file that is one completion."""
    from codescaler_plugin.extraction import extract_code

    completion = io.TextIOWrapper(source, "utf-8-sig", "surrogateescape").read()
    try:
        completion.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{source.name} is not UTF-8 at character {error.start}") from None
    extraction = extract_code(completion, **settings)
    if not extraction.code:
        raise DataError(f"{extraction.status}: {extraction.explanation}")
    print(printable(extraction.code) if sink.isatty() else extraction.code, end="", file=sink)


def _completion(row: dict[str, Any], reasoning_marks: str | None) -> str:
    """The completion of a row, after what its prompt has opened."""
    from codescaler_plugin.extraction import begun, prompt_opening

    text = completion_text(row["completion"])
    prompt = row.get("prompt", row.get("problem"))
    try:
        start, is_reply = ("", True) if prompt is None else begun_text(prompt)
    except DataError:  # it is no prompt
        return text
    return begun(prompt_opening(start, reasoning_marks, is_reply=is_reply), text)


def _print_histogram(counts: Counter[str]) -> None:
    if not counts:
        errors.print("no completions")
        return
    table = number_table("status", "completions", "share", "")
    for status, count in counts.most_common():
        bar = Bar(max(counts.values()), 0, count, width=30)
        table.add_row(status, str(count), f"{count / counts.total():.1%}", bar)
    errors.print(table)
