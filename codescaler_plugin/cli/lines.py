"""`codescaler score` and `codescaler extract`: lines of JSON in, the same lines with a judgement out."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, TextIO

import typer

from codescaler_plugin.cli.options import MaxTokens, Model
from codescaler_plugin.cli.rows import Output, Source, Strict, chunks, write
from codescaler_plugin.cli.terminal import errors, number_table, open_output, reported, without_loading_bars
from codescaler_plugin.errors import DataError
from codescaler_plugin.safety import printable


def score(
    source: Source = "-",  # type: ignore[assignment]
    model: Model = None,
    output: Output = None,
    max_tokens: MaxTokens = None,
    strict: Strict = False,
) -> None:
    """Judge completions: JSONL with `problem` and `completion` in, JSONL with the judgement added out.

    A bad line is reported with its number on stderr and skipped.

    Exit code: 0 all judged; 1 an error, with --strict a bad line; 3 some lines were skipped or got no score.
    """
    from codescaler_plugin.config import CodeScalerConfig
    from codescaler_plugin.pipeline import CodeScaler, raise_for_failures

    without_loading_bars()
    with reported(), open_output(output, [source]) as sink:
        scaler = CodeScaler(config=CodeScalerConfig.from_env(model=model, max_tokens=max_tokens))
        complete = True
        columns, template = ("problem", "completion"), scaler.template
        for rows, count in chunks(source, columns, "scoring", strict=strict, template=template):
            judgements = scaler.judge([row["problem"] for row in rows], [row["completion"] for row in rows])
            raise_for_failures(judgements)
            _write(sink, rows, judgements)
            complete &= len(rows) == count and all(judgement.reward is not None for judgement in judgements)
    if not complete:
        raise typer.Exit(3)


def extract(
    source: Source = "-",  # type: ignore[assignment]
    language: Annotated[str, typer.Option(help="Language the code must be in, or 'any'.")] = "python",
    extraction: Annotated[str, typer.Option(help="Which block counts: single, last, first or bare.")] = "single",
    explain: Annotated[bool, typer.Option(help="Say in a sentence why each status is what it is.")] = False,
    reasoning_marks: Annotated[
        str | None, typer.Option(help="Further marks of reasoning, such as '<plan> </plan>'.")
    ] = None,
    thinking_prefilled: Annotated[
        bool, typer.Option("--thinking-prefilled", help="The prompts open the reasoning.")
    ] = False,
    fence_prefilled: Annotated[bool, typer.Option("--fence-prefilled", help="The prompts open the fence.")] = False,
    text: Annotated[bool, typer.Option("--text", help="FILE is one completion; print its code.")] = False,
    output: Output = None,
    strict: Strict = False,
) -> None:
    """Take the code out of completions, without a model.

    JSONL with `completion` in; JSONL with code, language and status added out,
    in place of fields that had these names. A `prompt` or `problem` beside it
    tells whether the prompt opens the reasoning or a fence. Ends with a
    histogram of the statuses on stderr. A bad line is reported with its number
    on stderr and skipped.

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
            completion = io.TextIOWrapper(source, "utf-8-sig", "surrogateescape").read()
            try:
                completion.encode()
            except UnicodeEncodeError as error:
                raise DataError(f"{source.name} is not UTF-8 at character {error.start}") from None
            whole = extract_code(completion, **settings, explain=True)
            if not whole.code:
                raise DataError(f"{whole.status}: {whole.explanation}")
            print(printable(whole.code) if sink.isatty() else whole.code, end="", file=sink)
            return
        extract_code("", **settings)  # a wrong setting is an error before the first line
        counts: Counter[str] = Counter()
        complete = True
        for rows, count in chunks(source, ("completion",), "extracting", strict=strict):
            texts = [_completion(row, reasoning_marks) for row in rows]
            extractions = extract_all(texts, **settings, explain=explain)
            _write(sink, rows, extractions, leave_out=() if explain else ("explanation",))
            counts.update(str(extraction.status) for extraction in extractions)
            complete &= len(rows) == count
        _print_histogram(counts)
    if not complete:
        raise typer.Exit(3)


def _completion(row: dict[str, Any], reasoning_marks: str | None) -> str:
    """The completion of a row, with what the prompt beside it has opened."""
    from codescaler_plugin.extraction import begun, prompt_opening
    from codescaler_plugin.text.messages import begun_text, completion_text

    text = completion_text(row["completion"])
    prompt = row.get("prompt", row.get("problem"))
    try:
        start, is_reply = ("", True) if prompt is None else begun_text(prompt)
    except DataError:  # it is no prompt
        return text
    return begun(prompt_opening(start, reasoning_marks, is_reply=is_reply), text)


def _print_histogram(counts: Counter[str]) -> None:
    from rich.bar import Bar

    if not counts:
        errors.print("no completions")
        return
    table = number_table("status", "completions", "share", "")
    for status, count in counts.most_common():
        bar = Bar(max(counts.values()), 0, count, width=30)
        table.add_row(status, str(count), f"{count / counts.total():.1%}", bar)
    errors.print(table)


def _write(sink: TextIO, rows: list[dict[str, Any]], records: Sequence[Any], leave_out: tuple[str, ...] = ()) -> None:
    """One line of JSON for each row with the fields of its record added."""
    for row, record in zip(rows, records, strict=True):
        added = {name: value for name, value in asdict(record).items() if name not in leave_out}
        if added.get("failure", "") is None:
            del added["failure"]
        write(sink, {**row, **added})
