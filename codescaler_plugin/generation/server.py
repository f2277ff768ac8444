"""Completions of an OpenAI-compatible server."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

from codescaler_plugin.errors import GenerationError, HttpError
from codescaler_plugin.http_client import HttpClient
from codescaler_plugin.text.messages import Text, problem_text

READ_SECONDS = 600.0


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
