"""Adaptive sampling: take candidates from a generator until one more is not worth its cost."""

import asyncio
import math
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from itertools import count

from codescaler_plugin.errors import ConfigError, DataError, GenerationError, HttpError
from codescaler_plugin.http_client import HttpClient
from codescaler_plugin.pipeline import CodeScaler, raise_for_failures
from codescaler_plugin.records import Judgement, Selection
from codescaler_plugin.selection.ranking import chosen, rank
from codescaler_plugin.text.messages import Text, completion_text, problem_text

READ_SECONDS = 600.0
_TOP = 4  # of n scores, the n/4 best tell how the best are spread


@dataclass(frozen=True)
class Stopping:
    """When sampling ends.

    Attributes:
        cost: of one sample, as a share of what a right answer is worth over a wrong one. 0: never stop early.
        least: samples at least; fewer tell nothing of the spread of scores.
        most: samples at most.
        batch: samples judged at a time.
    """

    cost: float = 0.01
    least: int = 4
    most: int = 64
    batch: int = 4

    def __post_init__(self) -> None:
        if not self.cost >= 0:
            raise ConfigError(f"cost is {self.cost!r}: expected a share of a right answer's worth, at least 0")
        if not 1 <= self.least <= self.most or self.batch < 1:
            raise ConfigError(f"{self}: expected 1 <= least <= most, and a batch of at least 1")


@dataclass(frozen=True)
class Sampled:
    """What adaptive sampling took.

    Attributes:
        selection: of the candidates taken, in their order.
        gain: expected of one more, in the unit of `Stopping.cost`; None if fewer than two have a score.
        stopped: `not worth it`, `most`, or `exhausted`: the generator had no more.
    """

    selection: Selection
    gain: float | None
    stopped: str

    @property
    def samples(self) -> int:
        """Candidates taken."""
        return len(self.selection.ranked)


def expected_gain(scores: Sequence[float | None], margin: float = 0.0) -> float | None:
    """What one more sample can be expected to add, in [0, 1); None if fewer than two samples have a score.

    Samples of one policy are exchangeable, so the next of n + 1 is the best of them with chance 1 / (n + 1); a sample
    without a score never is, and counts. Then it is better by d logits, and is the better program with probability
    s(d) = 1 / (1 + e^-d) (Bradley-Terry), so that taking it gains s(d) - s(-d) = tanh(d / 2). How far the best go is
    read from the scores so far: d is the mean excess of the best quarter over the next score, which for tails that
    fall as e^-x is what a new best adds. All of that is to no avail where the first program is right already, so it
    counts with probability s(-margin).

    It trusts the scores: with a model that cannot tell right from wrong, no number of samples is worth its cost, and
    this does not know.

    Args:
        scores: raw logits of the samples so far, copies included; None where there is none.
        margin: worth of the first program minus that of the next other one, at least 0.
    """
    found = sorted((score for score in scores if score is not None), reverse=True)
    if len(found) < 2:
        return None
    top = max(1, len(found) // _TOP)
    excess = sum(found[:top]) / top - found[top]
    return math.tanh(excess / 2) / (len(scores) + 1) / (1 + math.exp(min(margin, 700.0)))


async def sample_adaptively(
    scaler: CodeScaler,
    problem: Text,
    candidates: AsyncIterable[str],
    *,
    stopping: Stopping | None = None,
    policy: str = "last",
    agreement: float = 0.0,
) -> Sampled:
    """Take and judge candidates until the expected gain of one more is below its cost.

    Judging runs in a thread, so other problems can be sampled meanwhile. The generator is closed at the end if it can
    be closed (has `aclose`).

    Args:
        scaler: see `best_of_n`, also for the next and the last two.
        problem: a string or messages.
        candidates: any asynchronous iterable of completions: `server_candidates`, `list_candidates`, your own.
        stopping: see `Stopping`; None: its defaults.
        policy: which block is the code.
        agreement: weight of copies.

    Raises:
        DataError: candidates that are not asynchronous.
        ConfigError, DataError, ScorerError: see `best_of_n`. What the generator raises comes through.
    """
    if not isinstance(candidates, AsyncIterable):
        raise DataError(
            f"candidates are a {type(candidates).__name__}: expected an asynchronous iterator; list_candidates makes "
            "one of a list or a generator"
        )
    rule = stopping or Stopping()
    source = aiter(candidates)
    judge = scaler.with_config(policy=policy)
    texts: list[str] = []
    judgements: list[Judgement] = []
    stopped, gain, selection = "most", None, chosen(())
    try:
        while len(texts) < rule.most:
            wanted = max(min(rule.batch, rule.most - len(texts)), rule.least - len(texts))
            batch = await _take(source, wanted, len(texts))
            judgements += await asyncio.to_thread(judge.judge, [problem] * len(batch), batch)
            raise_for_failures(judgements)
            texts += batch
            selection = chosen(rank(texts, judgements, language=judge.config.language, agreement=agreement))
            gain = expected_gain([one.score for one in judgements], selection.margin or 0.0)
            if len(batch) < wanted:
                stopped = "exhausted"
                break
            if gain is not None and gain < rule.cost and len(texts) >= rule.least:
                stopped = "not worth it"
                break
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
    return Sampled(selection, gain, stopped)


async def _take(candidates: AsyncIterator[str], wanted: int, before: int) -> list[str]:
    batch: list[str] = []
    async for one in candidates:
        batch.append(completion_text(one, f"candidate {before + len(batch)}"))
        if len(batch) == wanted:
            break
    return batch


async def list_candidates(candidates: Iterable[str]) -> AsyncIterator[str]:
    """A list or a plain generator as an asynchronous one; its next item is waited for in a thread.

    So a pipeline of transformers is sampled as far as needed and no further:
    `list_candidates(pipe(prompt, do_sample=True, return_full_text=False)[0]["generated_text"] for _ in range(64))`.
    """
    end = object()
    iterator = iter(candidates)
    while (one := await asyncio.to_thread(next, iterator, end)) is not end:
        yield one  # type: ignore[misc]


async def server_candidates(
    urls: str,
    problem: Text,
    *,
    model: str | None = None,
    batch: int = 4,
    temperature: float = 1.0,
    max_tokens: int | None = None,
    api_key: str | None = None,
) -> AsyncIterator[str]:
    """Completions of an OpenAI-compatible server (`/v1/chat/completions`, such as `vllm serve MODEL`), without end.

    Args:
        urls: `http://host:port`, with or without `/v1`; several of equal servers divided by commas.
        problem: sent as the user turn; or messages, sent as they are.
        model: the server's name for it; None: the only one it serves.
        batch: completions per request (`n`); also how many are thrown away at most when sampling stops.
        temperature: of sampling.
        max_tokens: per completion; None: the server's limit. A completion that is cut has an unclosed block, and is
            judged as such.
        api_key: sent as a bearer token.

    Raises:
        ConfigError: an address that is none.
        GenerationError: a server cannot be reached, refuses the request, or answers something else; it is named.
    """
    pool = server_pool(urls, api_key)
    name = model if model is not None else await asyncio.to_thread(served_model, pool)
    messages = [{"role": "user", "content": problem_text(problem)}] if isinstance(problem, str) else problem
    body: dict[str, object] = {"model": name, "messages": messages, "n": batch, "temperature": temperature}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    for request in count():
        for text in await asyncio.to_thread(completions_of, pool, body, request):
            yield text


def server_pool(urls: str, api_key: str | None) -> HttpClient:
    """A client of OpenAI-compatible servers."""
    bare = ",".join(url.strip().rstrip("/").removesuffix("/v1") for url in urls.split(","))
    return HttpClient(bare, read_seconds=READ_SECONDS, api_key=api_key)


def served_model(pool: HttpClient) -> str:
    """The name of the one model that the first server serves.

    Raises:
        GenerationError: it cannot be reached, or serves none or several.
    """
    url = pool.urls[0]
    try:
        answer = pool.get("/v1/models", url)
    except HttpError as error:
        raise GenerationError(str(error)) from error
    try:
        names = [str(one["id"]) for one in answer["data"]]
    except (KeyError, TypeError):
        raise GenerationError(f"{url}/v1/models answered {str(answer)[:100]!r}: is it OpenAI-compatible?") from None
    if len(names) != 1:
        raise GenerationError(
            f"{url} serves {', '.join(names) or 'no model'}: name the one that writes the candidates"
        )
    return names[0]


def completions_of(pool: HttpClient, body: dict[str, object], request: int) -> list[str]:
    """The texts that a server answers to a chat request; `request` is any number, and tells which of equal servers.

    Raises:
        GenerationError: it cannot be reached, refuses, or answers something else.
    """
    try:
        answer = pool.post("/v1/chat/completions", body, affinity=request)
    except HttpError as error:
        raise GenerationError(str(error)) from error
    try:
        texts = [choice["message"].get("content") or "" for choice in answer["choices"]]
    except (KeyError, TypeError, AttributeError):
        texts = []
    if not texts or not all(isinstance(text, str) for text in texts):
        raise GenerationError(
            f"{', '.join(pool.urls)} answered {str(answer)[:100]!r}: expected choices, each with a message"
        )
    return texts
