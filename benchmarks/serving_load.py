"""Clients of a reward server, in a process of their own: one sample per request, as OpenRLHF sends them.

    python benchmarks/serving_load.py URL SAMPLES.jsonl < settings.json

With openrlhf installed and `"client": "openrlhf"` the requests are made by its own `SingleTurnAgentExecutor`; else by
a lighter one with the same behaviour: a connection per request, five tries, a second between them. Prints one JSON
document: seconds, and per sample its reward (null: lost), latency and when it was sent.

Settings: `clients` that each take the next sample when theirs is answered; or `rate`, samples per second sent at even
distances, `burst` at a time; `repeat`: seconds for which the samples are sent over and over, each time with another
comment in the code, or `until`: a file at whose appearance that ends; `hostile` and `leavers`: shares of samples that
are mangled, and of clients that go away early.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TRIES, PAUSE, TIMEOUT = 5, 1.0, 180.0
Post = Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]


class StatusError(Exception):
    """An answer other than 200."""


def light_client(url: str) -> Post:
    """A connection per request."""
    parts = urlsplit(url)

    async def attempt(body: bytes) -> Any:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            head = f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
            answer = await reader.read()
        finally:
            writer.close()
        head_bytes, _, payload = answer.partition(b"\r\n\r\n")
        if not head_bytes.startswith(b"HTTP/1.1 200"):
            raise StatusError(head_bytes[:30])
        return json.loads(payload)

    async def post(sample: dict[str, Any]) -> Any:
        body = json.dumps(sample).encode()
        for _ in range(TRIES):
            try:
                return await asyncio.wait_for(attempt(body), TIMEOUT)
            except (OSError, StatusError, TimeoutError, ValueError):
                await asyncio.sleep(PAUSE)
        return None

    return post


def openrlhf_client(url: str) -> Post:
    """OpenRLHF's own; it raises after its last try, and its caller then keeps no reward."""
    from openrlhf.utils.agent import SingleTurnAgentExecutor

    executor = SingleTurnAgentExecutor(url)

    async def post(sample: dict[str, Any]) -> Any:
        try:
            fetch = executor._fetch_rewards_via_http
            return (await fetch(sample["query"], sample["prompts"], sample["labels"]))[0]
        except RuntimeError:
            return None

    return post


def bodies(path: Path, settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One-sample bodies, once, or until the time is over."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rng = random.Random(0)
    stop = Path(settings["until"]) if "until" in settings else None
    end = time.monotonic() + settings.get("repeat", 0)
    for turn in count():
        for row in rows:
            if stop is not None and stop.exists():
                return
            query = row["query"].replace("```python\n", f"```python\n# {turn}\n") if turn else row["query"]
            if rng.random() < settings.get("hostile", 0):
                query = rng.choice(HOSTILE)(query)
            yield {"query": [query], "prompts": [row["prompt"]], "labels": [row["label"]]}
        if stop is None and time.monotonic() >= end:
            return


HOSTILE: list[Callable[[str], str]] = [
    lambda _: "",
    lambda query: query[len(query) // 2 :],
    lambda query: query + "`" * 20_000,
    lambda query: query.replace("```python\n", "```python\n" + "(" * 5_000),
    lambda query: query.replace("```python\n", "```python\n# <|im_end|></think>\x00\ud800\n"),
    lambda query: query + "<|im_start|>assistant\n" * 2_000,
    lambda query: query.replace("\n```", "\n" + "x = 1\n" * 3_000 + "```"),
]


async def run(post: Post, samples: Iterator[dict[str, Any]], settings: dict[str, Any]) -> dict[str, Any]:
    """Send everything; see the module."""
    results: list[dict[str, Any]] = []
    left = 0
    rng = random.Random(1)
    start = time.monotonic()

    async def send(sample: dict[str, Any]) -> None:
        nonlocal left
        sent = time.monotonic()
        if rng.random() < settings.get("leavers", 0):
            left += 1
            task = asyncio.create_task(post(sample))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return
        answer = await post(sample)
        reward = answer["rewards"] if isinstance(answer, dict) else None
        reward = reward[0] if isinstance(reward, list) and reward else reward
        results.append({"reward": reward, "seconds": time.monotonic() - sent, "at": sent - start})

    async def client() -> None:
        for sample in samples:
            await send(sample)

    if "rate" in settings:
        burst = settings.get("burst", 1)
        tasks: set[asyncio.Task[None]] = set()
        for number, sample in enumerate(samples):
            await asyncio.sleep(max(0.0, start + number // burst * burst / settings["rate"] - time.monotonic()))
            task = asyncio.create_task(send(sample))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    else:
        await asyncio.gather(*(client() for _ in range(settings["clients"])))
    return {"seconds": time.monotonic() - start, "left": left, "results": results}


def main() -> None:
    """Read the settings from stdin, print the results."""
    url, path = sys.argv[1], Path(sys.argv[2])
    settings = json.load(sys.stdin)
    post = openrlhf_client(url) if settings.get("client") == "openrlhf" else light_client(url)
    print(json.dumps(asyncio.run(run(post, bodies(path, settings), settings))))


if __name__ == "__main__":
    main()
