"""What a policy writes, judged by execution: samples from transformers or a server, Avg@n and pass@k.

Transformers sample small policies on one device; a large one is served, by `vllm serve` or any OpenAI-compatible
server.
"""

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from codescaler_plugin.data.outputs import check_folder, open_resumable
from codescaler_plugin.errors import ConfigError, DataError
from codescaler_plugin.evaluation.intervals import Mean, mean_of, pass_at_k
from codescaler_plugin.evaluation.sampling import Sampling
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.pipeline import CodeScaler, raise_for_failures
from codescaler_plugin.preference.grading import named_faults
from codescaler_plugin.preference.sandbox import run_tests
from codescaler_plugin.records import Judgement, Problem, Status
from codescaler_plugin.scoring.loading import pretrained
from codescaler_plugin.selection.sampling import completions_of, served_model, server_pool
from codescaler_plugin.threads import fitting_threads

BATCH_SIZE = 256

logger = logging.getLogger(__name__)

Complete = Callable[[str, int], list[str]]
"""Writes n completions to a prompt, the user turn."""


@dataclass(frozen=True)
class Sampled:
    """n completions per problem with their verdicts, problem by problem: two lists of lists of equal shape.

    `unjudged` counts the completions on which the tests gave no verdict; they are among those that have not passed.
    """

    completions: list[list[str]]
    passed: list[list[bool]]
    unjudged: int = 0

    @property
    def pass_at_1(self) -> float:
        """Mean share of completions that pass all tests (unbiased for k = 1)."""
        return fmean(fmean(row) for row in self.passed)

    @property
    def oracle(self) -> float:
        """Share of problems with at least one passing completion: the ceiling of any selection among the n."""
        return fmean(any(row) for row in self.passed)

    @property
    def invalid_share(self) -> float:
        """Share of completions without exactly one valid program."""
        return fmean(extract_code(text).status is not Status.OK for row in self.completions for text in row)


@dataclass(frozen=True)
class Measurement:
    """A policy's samples with their verdicts, and the reward's judgement of each, in the same shape."""

    sampled: Sampled
    judgements: list[list[Judgement]]

    @property
    def mean_reward(self) -> float:
        """Mean over the samples that have a reward."""
        rewards = [judgement.reward for row in self.judgements for judgement in row]
        return fmean(reward for reward in rewards if reward is not None)

    @property
    def best_of_n(self) -> float:
        """Share of problems whose highest-reward sample passes; the first wins a tie, one without a reward never."""
        best = [_best(row) for row in self.judgements]
        return fmean(passed[index] for passed, index in zip(self.sampled.passed, best, strict=True))


def _best(judgements: list[Judgement]) -> int:
    worth = [-math.inf if judgement.reward is None else judgement.reward for judgement in judgements]
    return worth.index(max(worth))


def measure_policy(
    policy: Any,
    tokenizer: Any,
    scaler: CodeScaler,
    problems: Sequence[Problem],
    *,
    n: int,
    max_new_tokens: int = 96,
    progress: Callable[[int], None] | None = None,
) -> Measurement:
    """Sample n completions per problem at temperature 1, run the tests, and judge; see `sample_completions`."""
    texts = [problem.text for problem in problems]
    completions = sample_completions(policy, tokenizer, texts, n=n, max_new_tokens=max_new_tokens, progress=progress)
    judgements = scaler.judge(
        [text for text in texts for _ in range(n)], [text for row in completions for text in row]
    )
    raise_for_failures(judgements)
    rows = [judgements[first : first + n] for first in range(0, len(judgements), n)]
    return Measurement(verify_completions(completions, problems), rows)


def sample_completions(
    policy: Any,
    tokenizer: Any,
    problems: Sequence[str],
    *,
    n: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    max_new_tokens: int = 96,
    progress: Callable[[int], None] | None = None,
) -> list[list[str]]:
    """Sample n completions per problem; the outer list follows the problems.

    Draws from torch's global generator: seed it for a repeatable result. A completion that has not ended after
    `max_new_tokens` tokens is returned as far as it came.

    Args:
        policy: a causal language model of transformers.
        tokenizer: its tokenizer, with a chat template and a pad token.
        problems: user turns.
        n: completions per problem.
        temperature: of sampling; 0 takes the most likely token.
        top_p: mass of the most likely tokens that are drawn from; 1: all.
        top_k: number of the most likely tokens that are drawn from; 0: all.
        max_new_tokens: length limit in tokens.
        progress: called with the number of completions just made.
    """
    import torch

    drawn: dict[str, Any] = {"do_sample": False}
    if temperature:
        drawn = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": top_k}
    turns = [[{"role": "user", "content": problem}] for problem in problems]
    prompts = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    rows = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    order = sorted((index for index in range(len(rows)) for _ in range(n)), key=lambda index: len(rows[index]))
    completions: list[list[str]] = [[] for _ in problems]
    for start in range(0, len(order), BATCH_SIZE):
        batch = order[start : start + BATCH_SIZE]
        width = max(len(rows[index]) for index in batch)
        padded = [[tokenizer.pad_token_id] * (width - len(rows[index])) + rows[index] for index in batch]
        ids = torch.tensor(padded, device=policy.device)
        lengths = torch.tensor([len(rows[index]) for index in batch], device=policy.device)
        mask = (torch.arange(width, device=policy.device) >= width - lengths[:, None]).long()
        with torch.inference_mode(), fitting_threads(policy):
            output = policy.generate(
                input_ids=ids,
                attention_mask=mask,
                **drawn,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
        texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        for index, text in zip(batch, texts, strict=True):
            completions[index].append(text)
        if progress is not None:
            progress(len(batch))
    return completions


def verify_completions(completions: Sequence[Sequence[str]], problems: Sequence[Problem]) -> Sampled:
    """Run the extracted code of every completion against its problem's tests; invalid code fails unrun."""
    codes = [[extract_code(text).code for text in row] for row in completions]
    verdicts = run_tests(
        [(code, problem) for row, problem in zip(codes, problems, strict=True) for code in row if code]
    )
    unjudged = sum(verdict.fault is not None for verdict in verdicts)
    if unjudged:
        named = named_faults(verdicts)
        logger.warning("the tests gave no verdict on %d completions, which count as not passed: %s", unjudged, named)
    run = iter(verdicts)
    return Sampled(
        completions=[list(row) for row in completions],
        passed=[[next(run).passed if code else False for code in row] for row in codes],
        unjudged=unjudged,
    )


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


@dataclass(frozen=True)
class Benchmark:
    """What a policy is worth on a benchmark.

    Attributes:
        problems: how many.
        n: completions of each.
        average: Avg@n, the mean share of completions that pass; its interval is of a bootstrap over problems.
        pass_at: pass@k by k.
        unusable: share of completions whose text holds no usable program.
        faults: completions without a verdict, by `Fault`. They are not known to be wrong, yet count as not passed, so
            `average` and `pass_at` are lower bounds where there are any.
    """

    problems: int
    n: int
    average: Mean
    pass_at: dict[int, Mean]
    unusable: float
    faults: dict[str, int] = field(default_factory=dict)


def summarise(verdicts: Iterable[Mapping[str, Any]], *, n: int, ks: Sequence[int]) -> dict[str, Benchmark]:
    """Benchmarks by name, from the rows that `verify_rollouts` writes; the first n completions of a problem count.

    Raises:
        DataError: a problem with fewer than n completions, or a k above n.
    """
    rows: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in verdicts:
        rows.setdefault(row["source"], {}).setdefault(row["problem_id"], []).append(row)
    found = {}
    for name, problems in rows.items():
        kept = {key: taken[:n] for key, taken in problems.items()}
        short = next((key for key, taken in kept.items() if len(taken) < n), None)
        if short is not None:
            raise DataError(f"problem {short!r} has {len(kept[short])} completions: expected {n}")
        passed = {key: [bool(row["passed"]) for row in taken] for key, taken in kept.items()}
        ids = list(passed)
        found[name] = Benchmark(
            problems=len(ids),
            n=n,
            average=mean_of([fmean(passed[key]) for key in ids], ids),
            pass_at={k: mean_of([pass_at_k(passed[key], k) for key in ids], ids) for k in ks},
            unusable=fmean(row["status"] != Status.OK for taken in kept.values() for row in taken),
            faults=dict(Counter(row["fault"] for taken in kept.values() for row in taken if row.get("fault"))),
        )
    return found
