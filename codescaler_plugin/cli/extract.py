"""`codescaler extract`."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, TextIO

from rich.bar import Bar
from typer import Exit, Option

from codescaler_plugin.cli.options import REWARD_EXTRACTION, Columns, Extraction, Limit, Output, Source, Strict
from codescaler_plugin.cli.rows import RowReader, Sample, opened, write_records
from codescaler_plugin.cli.terminal import Closing, errors, number_table, open_output, reported
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.safety import printable


def extract(
    source: Source = "-",
    language: Annotated[str, Option(help="Language of the code, or 'any'.")] = "python",
    extraction: Extraction = REWARD_EXTRACTION,
    reasoning_marks: Annotated[
        str | None, Option(help="Further marks of reasoning, such as '<plan> </plan>'.")
    ] = None,
    thinking_prefilled: Annotated[
        bool, Option("--thinking-prefilled", help="The prompts open the reasoning.")
    ] = False,
    fence_prefilled: Annotated[bool, Option("--fence-prefilled", help="The prompts open the fence.")] = False,
    text: Annotated[bool, Option("--text", help="FILE is one completion; print its code.")] = False,
    output: Output = None,
    columns: Columns = None,
    limit: Limit = None,
    strict: Strict = False,
) -> None:
    """Take the code out of completions, without a model.

    Rows in with a completion, or a list of them; JSONL out: the same rows with
    code, language, status and explanation, which replace fields of these names.
    A prompt or problem beside the completion tells if it opens the reasoning or
    a fence. A histogram of the statuses follows on stderr. A bad row is
    reported with its number on stderr and skipped.

    Example: codescaler extract answers.jsonl --output extracted.jsonl

    Exit code: 0 all lines read; 1 an error, with --strict a bad line, with
    --text no valid code; 3 some lines were skipped.
    """
    from codescaler_plugin.extraction import extract_all, extract_code
    from codescaler_plugin.text.messages import completion_text

    settings: dict[str, Any] = {
        "language": language,
        "extraction": extraction,
        "reasoning_marks": reasoning_marks,
        "thinking_prefilled": thinking_prefilled,
        "fence_prefilled": fence_prefilled,
    }
    closing, counts = Closing(), Counter[str]()
    with reported(), open_output(output, [opened(source)]) as sink:
        if text:
            _print_code(source, sink, settings)
            return
        extract_code("", **settings)  # a wrong setting is an error before the first line
        reader = RowReader(source, "extracting", "completion", columns, limit, strict)
        for samples in reader:
            texts = [completion_text(sample.completion) for sample in samples]
            openings = [_opening(sample, reasoning_marks) for sample in samples]
            extractions = extract_all(texts, **settings, openings=openings)
            write_records(sink, [sample.row for sample in samples], extractions)
            counts.update(str(extraction.status) for extraction in extractions)
    _print_histogram(counts)
    shown, total = {"ok": counts["ok"], "skipped": reader.skipped.count}, counts.total()
    closing.say("read", total, "completions", of=total + reader.skipped.count, counts=shown, written=[output])
    if reader.skipped.count:
        raise Exit(3)


def _print_code(source: str, sink: TextIO, settings: dict[str, Any]) -> None:
    """Print the code of a file that is one completion."""
    from codescaler_plugin.extraction import extract_code

    if source != "-" and not Path(source).is_file():
        raise ConfigError(f"{source} is no file: --text reads one completion from a file, or from stdin as -")
    data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    completion = data.decode("utf-8-sig", "surrogateescape").replace("\r\n", "\n")
    try:
        completion.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{'<stdin>' if source == '-' else source} is not UTF-8 at character {error.start}") from None
    extraction = extract_code(completion, **settings)
    if not extraction.code:
        raise DataError(f"{extraction.status}: {extraction.explanation}")
    print(printable(extraction.code) if sink.isatty() else extraction.code, end="", file=sink)


def _opening(sample: Sample, reasoning_marks: str | None) -> str:
    """What the prompt of a row has opened, if it has one."""
    from codescaler_plugin.extraction import prompt_opening
    from codescaler_plugin.text.messages import begun_text

    try:
        start, is_reply = ("", True) if sample.problem is None else begun_text(sample.problem)
    except DataError:  # it is no prompt
        return ""
    return prompt_opening(start, reasoning_marks, is_reply=is_reply)


def _print_histogram(counts: Counter[str]) -> None:
    if not counts:
        return
    table = number_table("status", "completions", "share", "")
    for status, count in counts.most_common():
        bar = Bar(max(counts.values()), 0, count, width=30)
        table.add_row(status, str(count), f"{count / counts.total():.1%}", bar)
    errors.print(table)
