"""`codescaler sample`."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any

from typer import Exit, Option

from codescaler_plugin.cli.candidates import GROUPS, RankingOptions, selection_row, start_of
from codescaler_plugin.cli.options import (
    Columns,
    Limit,
    MaxNewTokens,
    Output,
    PolicyModel,
    Server,
    ServerKey,
    Source,
    Strict,
    grouped,
)
from codescaler_plugin.cli.rows import RowReader, Sample, opened, write
from codescaler_plugin.cli.terminal import Closing, load_model, open_output, reported
from codescaler_plugin.errors import GenerationError, HttpError
from codescaler_plugin.selection.records import Outcome

if TYPE_CHECKING:
    from codescaler_plugin.selection.adaptive import AdaptiveSelection

_ASKED = 64  # largest number of candidates in one request
_FIRST = 4  # candidates before sampling may stop early


@grouped
def sample(
    source: Source = "-",
    *,
    server: Server,
    policy_model: PolicyModel = None,
    ranking: RankingOptions,
    n: Annotated[int, Option("-n", min=1, help="Largest number of candidates per problem.")] = 8,
    sample_cost: Annotated[
        float, Option(min=0, help="Stop early if one more gains less, as a share of a right answer.")
    ] = 0.0,
    temperature: Annotated[float, Option(min=0)] = 1.0,
    max_new_tokens: MaxNewTokens = None,
    api_key: ServerKey = None,
    output: Output = None,
    columns: Columns = None,
    limit: Limit = None,
    strict: Strict = False,
) -> None:
    """Sample candidates from a server until one more is not worth its cost.

    Rows in with a problem. JSONL out: the same rows with `completions`,
    `stopped` (the reason) and the columns of codescaler rank, which also reads
    this output: to run tests, for example.

    Example: codescaler sample problems.jsonl --server http://localhost:8000

    Exit code: 0 a winner for each problem; 1 an error, or with --strict a bad
    line; 3 some lines were skipped or some problems have no winner.
    """
    from codescaler_plugin.generation.server import server_candidates
    from codescaler_plugin.selection.adaptive import Stopping, sample_adaptively

    closing, outcomes, completions = Closing(), Counter[str](), 0
    with reported(), open_output(output, [opened(source)]) as sink:
        scaler = ranking.scaler()
        least = min(_FIRST, n)
        batch = least if sample_cost else ceil(n / ceil(n / _ASKED))  # without a cost, ask for all at once
        stopping = Stopping(cost=sample_cost, min_samples=least, max_samples=n, batch=batch)
        settings: dict[str, Any] = {"model": policy_model, "temperature": temperature, "max_tokens": max_new_tokens}
        candidates: Any = partial(server_candidates, server, batch=batch, api_key=api_key, **settings)

        def sampled(problem: Any) -> "Awaitable[AdaptiveSelection]":
            return sample_adaptively(
                scaler,
                problem,
                candidates(problem),
                stopping=stopping,
                extraction=ranking.extraction,
                self_consistency=ranking.self_consistency,
            )

        rows = RowReader(source, "sampling", "problem", columns, limit, strict, scaler.template)
        rows.prepare = partial(load_model, scaler)
        for samples in rows:
            results = asyncio.run(_sample_all(samples, sampled, rows))
            for sample_, result in zip(samples, results, strict=True):
                if result is not None:
                    outcomes[str(result.selection.outcome)] += 1
                    ranked = sorted(result.selection.ranked, key=lambda candidate: candidate.index)
                    texts = [candidate.completion for candidate in ranked]
                    completions += len(texts)
                    added = {"completions": texts, "stopped": result.stopped, **selection_row(result.selection)}
                    write(sink, {**sample_.row, **added})
    counts = {"completions": completions, **{name.replace("_", " "): count for name, count in outcomes.most_common()}}
    counts |= {"skipped": rows.skipped.count}
    done = outcomes.total()
    closing.say("sampled", done, "problems", of=done + rows.skipped.count, counts=counts, written=[output])
    if rows.skipped.count or done > outcomes[str(Outcome.CHOSEN)]:
        raise Exit(3)


async def _sample_all(
    samples: Sequence[Sample], sampled: "Callable[[Any], Awaitable[AdaptiveSelection]]", rows: RowReader
) -> "list[AdaptiveSelection | None]":
    """The candidates of all rows, sampled at the same time. None for a row that is skipped."""

    async def one_row(sample_: Sample) -> "AdaptiveSelection | None":
        problem = f"problem {start_of(sample_.problem)!r}"
        if columns := [name for name in ("completions", "completion") if name in sample_.row]:
            rows.skip(f"{problem}: `{columns[0]}` is there already, and sampling would replace it: leave it out")
            return None
        try:
            return await sampled(sample_.problem)
        except GenerationError as error:
            if not (isinstance(error.__cause__, HttpError) and error.__cause__.is_refusal):
                raise
            rows.skip(f"{problem}: {error}", error)
            return None

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(GROUPS))  # a request for each problem
    return await asyncio.gather(*map(one_row, samples))
