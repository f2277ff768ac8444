"""`codescaler score`."""

from typer import Exit

from codescaler_plugin.cli.options import MaxTokens, Model, Output, Source, Strict
from codescaler_plugin.cli.rows import chunks, write_records
from codescaler_plugin.cli.terminal import hide_loading_bars, open_output, reported


def score(
    source: Source = "-",  # type: ignore[assignment]
    model: Model = None,
    output: Output = None,
    max_tokens: MaxTokens = None,
    strict: Strict = False,
) -> None:
    """Judge completions with a reward model.

    JSONL in with `problem` and `completion`; the same lines out with reward,
    score, status, code and explanation (a sentence on the reason of the
    status), or with the failure. A bad line is reported with its
    number on stderr and skipped.

    Example: codescaler score answers.jsonl --output judged.jsonl

    Exit code: 0 all judged; 1 an error, or with --strict a bad line; 3 some
    lines were skipped or got no score.
    """
    from codescaler_plugin.config import CodeScalerConfig
    from codescaler_plugin.pipeline import CodeScaler, raise_for_failures

    hide_loading_bars()
    with reported(), open_output(output, [source]) as sink:
        scaler = CodeScaler(config=CodeScalerConfig.from_env(model=model, max_tokens=max_tokens))
        is_complete = True
        columns, template = ("problem", "completion"), scaler.template
        for rows, count in chunks(source, columns, "scoring", strict=strict, template=template):
            judgements = scaler.judge([row["problem"] for row in rows], [row["completion"] for row in rows])
            raise_for_failures(judgements)
            write_records(sink, rows, judgements)
            is_complete &= len(rows) == count and all(judgement.reward is not None for judgement in judgements)
    if not is_complete:
        raise Exit(3)
