"""`codescaler sample`."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any

from typer import Exit, Option

from codescaler_plugin.cli.candidates import GROUPS, RankingOptions, Row, selection_row, start_of
from codescaler_plugin.cli.options import Output, ServerKey, Source, Strict, grouped
from codescaler_plugin.cli.rows import chunks, skip, write
from codescaler_plugin.cli.terminal import hide_loading_bars, open_output, reported
from codescaler_plugin.errors import GenerationError, HttpError
from codescaler_plugin.selection.records import Outcome

if TYPE_CHECKING:
    from codescaler_plugin.selection.adaptive import AdaptiveSelection

_ASKED = 64  # largest number of candidates in one request
_FIRST = 4  # candidates before sampling may stop early


@grouped
def sample(
    source: Source = "-",  # type: ignore[assignment]
    *,
    server: Annotated[str, Option(metavar="URL", help="OpenAI-compatible server of the policy.")],
    policy_model: Annotated[str | None, Option(help="The server's model; else the only one it serves.")] = None,
    ranking: RankingOptions,
    n: Annotated[int, Option("-n", min=1, help="Largest number of candidates per problem.")] = 8,
    cost: Annotated[
        float, Option(min=0, help="Stop early if one more gains less, as a share of a right answer.")
    ] = 0.0,
    temperature: Annotated[float, Option(min=0)] = 1.0,
    max_tokens: Annotated[int | None, Option(min=1, help="Per candidate; else the server's limit.")] = None,
    api_key: ServerKey = None,
    output: Output = None,
    strict: Strict = False,
) -> None:
    """Sample candidates from a server until one more is not worth its cost.

    JSONL in with `problem`. JSONL out: the same lines with `completions`,
    `stopped` (the reason) and the columns of codescaler rank, which also reads
    this output: to run tests, for example.

    Example: codescaler sample problems.jsonl --server http://localhost:8000

    Exit code: 0 a winner for each problem; 1 an error, or with --strict a bad
    line; 3 some lines were skipped or some problems have no winner.
    """
    from codescaler_plugin.generation.server import server_candidates
    from codescaler_plugin.selection.adaptive import Stopping, sample_adaptively

    hide_loading_bars()
    with reported(), open_output(output, [source]) as sink:
        scaler = ranking.scaler()
        least = min(_FIRST, n)
        batch = least if cost else ceil(n / ceil(n / _ASKED))  # without a cost, ask for all at once
        stopping = Stopping(cost=cost, min_samples=least, max_samples=n, batch=batch)
        settings: dict[str, Any] = {"model": policy_model, "temperature": temperature, "max_tokens": max_tokens}
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

        is_complete = True
        for rows, count in chunks(source, ("problem",), "sampling", strict=strict, template=scaler.template):
            results = asyncio.run(_sample_all(rows, sampled, strict=strict))
            is_complete &= len(rows) == count
            for row, result in zip(rows, results, strict=True):
                is_complete &= result is not None and result.selection.outcome is Outcome.CHOSEN
                if result is not None:
                    ranked = sorted(result.selection.ranked, key=lambda candidate: candidate.index)
                    texts = [candidate.completion for candidate in ranked]
                    added = {"completions": texts, "stopped": result.stopped, **selection_row(result.selection)}
                    write(sink, {**row, **added})
    if not is_complete:
        raise Exit(3)


async def _sample_all(
    rows: Sequence[Row], sampled: "Callable[[Any], Awaitable[AdaptiveSelection]]", *, strict: bool
) -> "list[AdaptiveSelection | None]":
    """The candidates of all rows, sampled at the same time. None for a row that is skipped."""

    async def one_row(row: Row) -> "AdaptiveSelection | None":
        problem = f"problem {start_of(row['problem'])!r}"
        if columns := [name for name in ("completions", "completion") if name in row]:
            message = f"`{columns[0]}` is there already, and sampling would replace it: leave it out"
            skip(f"{problem}: {message}", strict=strict)
            return None
        try:
            return await sampled(row["problem"])
        except GenerationError as error:
            if not (isinstance(error.__cause__, HttpError) and error.__cause__.is_refusal):
                raise
            skip(f"{problem}: {error}", error, strict=strict)
            return None

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(GROUPS))  # a request for each problem
    return await asyncio.gather(*map(one_row, rows))
