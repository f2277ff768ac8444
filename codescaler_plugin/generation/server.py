"""Completions of OpenAI-compatible servers (`/v1/chat/completions`), such as `vllm serve MODEL`."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count

from codescaler_plugin.errors import GenerationError, HttpError
from codescaler_plugin.generation.sampling import Completer, Sampling
from codescaler_plugin.http_client import HttpClient
from codescaler_plugin.text.messages import Text, problem_text

READ_SECONDS = 600.0


def server_completer(
    urls: str, sampling: Sampling, *, model: str | None = None, api_key: str | None = None
) -> tuple[Completer, str]:
    """A completer over servers, and the name of its model. Threads may share the completer.

    Commas separate the addresses of equal servers. By default the model is the only one that they serve. A `top_k`
    other than 0 is sent too; only some servers, such as vLLM's, accept it.

    Raises:
        ConfigError: an address is not valid.
        GenerationError: the server cannot be reached, now or in a later call.
    """
    client = server_client(urls, api_key)
    name = model if model is not None else served_model(client)
    body: dict[str, object] = {"model": name, "temperature": sampling.temperature, "top_p": sampling.top_p}
    body |= {"max_tokens": sampling.max_tokens} | ({"top_k": sampling.top_k} if sampling.top_k else {})

    def complete(prompt: str, n: int) -> list[str]:
        completions: list[str] = []
        while len(completions) < n:  # some servers return one choice, whatever n is
            request = {**body, "messages": [{"role": "user", "content": prompt}], "n": n - len(completions)}
            completions += completions_of(client, request, hash(prompt) + len(completions))
        return completions[:n]

    return complete, name


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
    """An endless asynchronous stream of a server's completions for one problem, for `sample_adaptively`.

    Args:
        urls: `http://host:port`, with or without `/v1`; commas separate the addresses of equal servers.
        problem: the user turn, or messages, which are sent unchanged.
        model: the server's name for the model. The default is the only model that it serves.
        batch: completions per request (`n`). At most this many are thrown away when sampling stops.
        temperature: sampling temperature.
        max_tokens: length limit of a completion in tokens. The default is the server's limit. A completion that is
            cut off has an unclosed block, and is judged as such.
        api_key: bearer token.

    Raises:
        ConfigError: an address is not valid.
        GenerationError: a server cannot be reached, refuses the request, or returns something else; it is named.

    Example:
        >>> async def first(problem: str) -> str:
        ...     return await anext(server_candidates("http://localhost:8000", problem))
        >>> completion = asyncio.run(first("Write solve(n): n plus one."))  # doctest: +SKIP
    """
    client = server_client(urls, api_key)
    name = model if model is not None else await asyncio.to_thread(served_model, client)
    messages = [{"role": "user", "content": problem_text(problem)}] if isinstance(problem, str) else problem
    body: dict[str, object] = {"model": name, "messages": messages, "n": batch, "temperature": temperature}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    for request in count():
        for completion in await asyncio.to_thread(completions_of, client, body, request):
            yield completion


def server_client(urls: str, api_key: str | None) -> HttpClient:
    """A client of OpenAI-compatible servers."""
    bare = ",".join(url.strip().rstrip("/").removesuffix("/v1") for url in urls.split(","))
    return HttpClient(bare, read_seconds=READ_SECONDS, api_key=api_key)


def served_model(client: HttpClient) -> str:
    """The name of the only model that the first server serves."""
    url = client.urls[0]
    try:
        response = client.get("/v1/models", url)
    except HttpError as error:
        raise GenerationError(str(error)) from error
    try:
        names = [str(entry["id"]) for entry in response["data"]]
    except (KeyError, TypeError):
        raise GenerationError(f"{url}/v1/models answered {str(response)[:100]!r}: is it OpenAI-compatible?") from None
    if len(names) != 1:
        raise GenerationError(
            f"{url} serves {', '.join(names) or 'no model'}: name the one that writes the candidates"
        )
    return names[0]


def completions_of(client: HttpClient, body: dict[str, object], request: int) -> list[str]:
    """The completions in the response to a chat request. The number `request` picks one of equal servers."""
    try:
        response = client.post("/v1/chat/completions", body, affinity=request)
    except HttpError as error:
        raise GenerationError(str(error)) from error
    try:
        completions = [choice["message"].get("content") or "" for choice in response["choices"]]
    except (KeyError, TypeError, AttributeError):
        completions = []
    if not completions or not all(isinstance(completion, str) for completion in completions):
        raise GenerationError(
            f"{', '.join(client.urls)} answered {str(response)[:100]!r}: expected choices, each with a message"
        )
    return completions
