"""What a policy writes to a set of problems, kept in a file: by transformers or by a server."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codescaler_plugin.data.outputs import check_folder, open_resumable
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.generation.local import sample_completions
from codescaler_plugin.generation.sampling import Sampling
from codescaler_plugin.generation.server import completions_of, served_model, server_pool
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import Problem

Complete = Callable[[str, int], list[str]]
"""Writes n completions to a prompt, the user turn."""


def prompt_of(text: str, *, entry_point: str = "", stdin: bool = False) -> str:
    """The user turn that asks for a program: the problem, and in which form it is to be solved.

    Args:
        text: the problem.
        entry_point: function that the tests call, `Solution.method` for a method; empty: not said.
        stdin: the program reads stdin and writes stdout.
    """
    way = ", reading stdin and writing stdout" if stdin else ""
    if entry_point:
        owner, _, name = entry_point.rpartition(".")
        way = f", as method `{name}` of a class `{owner}`" if owner else f", as a function `{name}`"
    return (
        f"{text}\n\nWrite a Python program that solves this problem{way}. Think first if you like, then give the "
        "whole program in one ```python block, and no other block."
    )


def prompt_for(problem: Problem, *, instruct: bool = True) -> str:
    """The user turn for a problem with tests."""
    if not instruct:
        return problem.text
    return prompt_of(problem.text, entry_point=problem.entry_point, stdin=not problem.entry_point)


def server_completer(
    urls: str, sampling: Sampling, *, model: str | None = None, api_key: str | None = None
) -> tuple[Complete, str]:
    """A completer over OpenAI-compatible servers (`/v1/chat/completions`), safe to call from threads; and its model.

    Args:
        urls: `http://host:port`; several of equal servers divided by commas.
        sampling: `top_k` is sent if it is not 0, which only servers such as vLLM's know.
        model: the server's name for it; None: the only one it serves.
        api_key: sent as a bearer token.

    Raises:
        ConfigError: an address that is none.
        GenerationError: the server cannot be reached; also when it is called.
    """
    pool = server_pool(urls, api_key)
    name = model if model is not None else served_model(pool)
    body: dict[str, object] = {"model": name, "temperature": sampling.temperature, "top_p": sampling.top_p}
    body |= {"max_tokens": sampling.max_tokens} | ({"top_k": sampling.top_k} if sampling.top_k else {})

    def complete(prompt: str, n: int) -> list[str]:
        texts: list[str] = []
        while len(texts) < n:  # some servers give one choice, whatever n is
            asked = {**body, "messages": [{"role": "user", "content": prompt}], "n": n - len(texts)}
            texts += completions_of(pool, asked, hash(prompt) + len(texts))
        return texts[:n]

    return complete, name


def transformers_completer(model: str, sampling: Sampling, *, seed: int) -> Complete:
    """A completer over a causal model of transformers, for one thread; on a CPU in float32.

    Raises:
        ConfigError: the model cannot be loaded, or its tokenizer has no chat template.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = pretrained(AutoTokenizer, model, f"policy {model!r}")
    dtype = torch.float32 if place.type == "cpu" else "auto"
    policy = pretrained(AutoModelForCausalLM, model, f"policy {model!r}", dtype=dtype)
    if tokenizer.chat_template is None:
        raise ConfigError(f"{model} has no chat template: serve it with one, or give an instruct model")
    policy = policy.to(place).eval()
    torch.manual_seed(seed)

    def complete(prompt: str, n: int) -> list[str]:
        return sample_completions(
            policy,
            tokenizer,
            [prompt],
            n=n,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_new_tokens=sampling.max_tokens,
        )[0]

    return complete


def generate(
    benchmarks: Mapping[str, Sequence[Problem]],
    complete: Complete,
    folder: Path,
    *,
    n: int,
    sampling: Sampling,
    model: str,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Bring every problem to n completions in `generations.jsonl`; what is there from an earlier run is kept.

    A line holds `problem_id`, `problem`, `completion` and `source`, the benchmark, in the order in which problems are
    finished. Called again after a kill, only what is missing is written; with a larger n, only what is new.

    Args:
        benchmarks: problems by name; ids are unique over all.
        complete: called from `threads` threads.
        folder: made if absent; `sampling.json` in it says what its completions were made with.
        n: completions per problem.
        sampling: of `complete`, to be compared when the run goes on.
        model: its name, likewise.
        threads: requests at a time.
        progress: called with the number of completions that are there.

    Raises:
        ConfigError: the folder holds completions of another model or other settings, or a row that is none.
        DataError: two problems with one id.
        GenerationError: the server failed. What has been written stays.
    """
    check_folder(folder)
    path = folder / "generations.jsonl"
    jobs = [(name, problem) for name, problems in benchmarks.items() for problem in problems]
    if len({problem.id for _, problem in jobs}) != len(jobs):
        twice = next(key for key, times in Counter(problem.id for _, problem in jobs).items() if times > 1)
        raise DataError(f"problem id {twice!r} stands for more than one problem: evaluate the files one by one")
    tick = progress or (lambda _: None)
    there: Counter[str] = Counter()

    def claim(row: Any) -> str:
        key = row.get("problem_id") if isinstance(row, dict) else None
        if not isinstance(key, str):
            return "is no completion of a run: give another output"
        there[key] += 1
        return ""

    made_with = {"model": model, **asdict(sampling)}
    with open_resumable(path, claim, companion=folder / "sampling.json", made_with=made_with) as file:
        tick(sum(min(n, there[problem.id]) for _, problem in jobs))
        pool = ThreadPoolExecutor(threads, thread_name_prefix="generation")
        try:
            started = {
                pool.submit(complete, prompt_for(problem, instruct=sampling.instruct), n - there[problem.id]): (
                    name,
                    problem,
                )
                for name, problem in jobs
                if there[problem.id] < n
            }
            for done in as_completed(started):
                name, problem = started[done]
                for text in done.result():
                    row = {"problem_id": problem.id, "problem": problem.text, "completion": text, "source": name}
                    file.write((json.dumps(row) + "\n").encode("ascii"))
                file.flush()
                tick(n - there[problem.id])
        finally:
            pool.shutdown(cancel_futures=True)
    return path
