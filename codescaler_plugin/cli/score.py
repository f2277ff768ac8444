"""`codescaler score`."""

from collections import Counter
from functools import partial

from typer import Exit

from codescaler_plugin.cli.options import (
    REWARD_EXTRACTION,
    Columns,
    Extraction,
    Limit,
    MaxTokens,
    Model,
    Output,
    Source,
    Strict,
)
from codescaler_plugin.cli.rows import RowReader, opened, write_records
from codescaler_plugin.cli.terminal import Closing, load_model, open_output, reported


def score(
    source: Source = "-",
    model: Model = None,
    output: Output = None,
    extraction: Extraction = REWARD_EXTRACTION,
    columns: Columns = None,
    limit: Limit = None,
    max_tokens: MaxTokens = None,
    strict: Strict = False,
) -> None:
    """Judge completions with a reward model.

    Rows in with a problem and a completion, or a list of them; JSONL out: the
    same rows with reward, score, status, code and explanation (a sentence on
    the reason of the status), or with the failure. A bad row is reported with
    its number on stderr and skipped.

    Example: codescaler score answers.jsonl --output judged.jsonl

    Exit code: 0 all judged; 1 an error, or with --strict a bad line; 3 some
    lines were skipped or got no score.
    """
    from codescaler_plugin.config import CodeScalerConfig
    from codescaler_plugin.pipeline import CodeScaler, raise_for_failures

    closing, counts = Closing(), Counter[str]()
    with reported(), open_output(output, [opened(source)]) as sink:
        config = CodeScalerConfig.from_env(model=model, max_tokens=max_tokens, extraction=extraction)
        scaler = CodeScaler(config=config)
        reader = RowReader(source, "scoring", "both", columns, limit, strict, scaler.template)
        reader.prepare = partial(load_model, scaler)
        for samples in reader:
            judgements = scaler.judge([one.problem for one in samples], [one.completion for one in samples])
            raise_for_failures(judgements)
            write_records(sink, [one.row for one in samples], judgements)
            counts.update(str(one.status if one.failure is None else one.failure.kind) for one in judgements)
            counts["\0scored"] += sum(one.reward is not None for one in judgements)
    scored = counts.pop("\0scored", 0)
    total = counts.total() + reader.skipped.count
    shown = {**dict(counts.most_common()), "skipped": reader.skipped.count}
    closing.say("scored", scored, "completions", of=total, counts=shown, written=[output])
    if scored < total:
        raise Exit(3)
