"""Latency of choosing 1 of 16 programs: by a reward model on the device, and by running given tests on all cores.

    python benchmarks/gpu/choosing.py [--device cuda] [--tiny] [--output FILE]

The problems are those of `recipes/data/slice` that have 16 different valid programs: HumanEval's with their own tests,
programs of CodeGen-16B. The tests exist before and cost nothing here. None of these programs runs into the timeout, so
all is timed a second time with one that never ends among the 16 of every fourth problem.

Ways to run the tests, all in the warm sandbox with the timeout that it has by default:

- `a process a program`: all 16 at once, each with all of its assertions;
- `one after the other`: the same up to the first program that passes, so the least work;
- `a process a test`: all 16 at once, each assertion in a process of its own up to a program's first failure.

The reward model has random weights in the true shape of Qwen3, which changes no time. Measured of it: `whole`, from
the fenced answers of the same problems to the choice, with the embedded models' tokenizer, whose vocabulary is small,
so that texts have more tokens than with Qwen3's; of that `encode`, rendering and tokenising, and `host`, all that is
outside the model (`encode`, finding the code, ranking); `forward`, the model alone on random tokens, 480 shared and
about 216 of each program's own. `sum` is `forward` plus `host`: what texts of that length take if their text costs no
more than the slice's. Ratios are tests by reward model: above 1 the reward model is faster.
"""

import ast
import gzip
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from gc import collect
from pathlib import Path
from statistics import fmean, median, quantiles
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import torch
from common import arguments, random_model, record, wait
from transformers import AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from bench_latency import OneProcessEach, cpu_seconds

from codescaler_plugin import CodeScaler, CodeScalerConfig
from codescaler_plugin.builtin import REWARD_MODEL
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.execution.jobs import TIMEOUT
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.extraction import extract_code
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import Problem, ScriptTest, Verdict
from codescaler_plugin.scoring.bench import synthetic_items
from codescaler_plugin.scoring.forward import padded_logits, tree_logits
from codescaler_plugin.scoring.transformers_scorer import TransformersScorer
from codescaler_plugin.selection.ranking import best_of_n

SLICE = Path(__file__).parents[2] / "recipes" / "data" / "slice"
CANDIDATES, PROMPT, COMPLETION = 16, 480, 216
EVERY = 4  # one problem in so many gets a program that never ends
REPETITIONS = 3
ENDLESS = "\n\n\ndef {}(*arguments, **keywords):\n    while True:\n        pass\n"


@dataclass(frozen=True)
class Task:
    """A problem, its programs, and the same problem with a test for each assertion."""

    problem: Problem
    separate: Problem
    codes: tuple[str, ...]
    endless: bool = False

    @property
    def answers(self) -> list[str]:
        """As a policy gives them."""
        return [f"```python\n{code}\n```" for code in self.codes]


@dataclass
class Way:
    """What one way to run tests took; the first list is of one time for each problem."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    runs: int = 0
    timeouts: int = 0


def by_assertion(problem: Problem) -> Problem:
    """The same problem with a test for each assertion of its `check`; those of a constant decide nothing and go."""
    (script,) = problem.tests
    assert isinstance(script, ScriptTest)
    tree = ast.parse(script.source)
    (check,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    body, tests = check.body, []
    for place, statement in enumerate(body):
        if isinstance(statement, ast.Assert) and not isinstance(statement.test, ast.Constant):
            check.body = [one for one in body[:place] if not isinstance(one, ast.Assert)] + [statement]
            tests.append(ScriptTest(ast.unparse(tree)))
    return replace(problem, tests=tuple(tests))


def tasks_of_slice(count: int | None) -> list[Task]:
    """The problems with enough different valid programs, each with the first of those."""
    codes: dict[str, dict[str, None]] = {}
    with gzip.open(SLICE / "rollouts.jsonl.gz", "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if code := extract_code(row["completion"]).code:
                codes.setdefault(row["task_id"], {})[code] = None
    return [
        Task(problem, by_assertion(problem), tuple(codes[problem.id])[:CANDIDATES])
        for problem in read_problems(SLICE / "problems.jsonl.gz")
        if len(codes[problem.id]) >= CANDIDATES
    ][:count]


def with_endless(tasks: Sequence[Task]) -> list[Task]:
    """Every fourth task again, one of its programs replaced by itself with a function that never ends."""
    changed = []
    for number, task in enumerate(tasks[::EVERY]):
        codes = list(task.codes)
        codes[number * 5 % len(codes)] += ENDLESS.format(task.problem.entry_point)
        changed.append(replace(task, codes=tuple(codes), endless=True))
    return changed


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and mean in milliseconds."""
    high = quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    return {
        name: round(value * 1e3, 2)
        for name, value in (("p50", median(seconds)), ("p95", high), ("mean", fmean(seconds)))
    }


def by_tests(tasks: Sequence[Task], sandbox: Sandbox, cores: int) -> tuple[dict[str, Way], int]:
    """Each task in all ways, and how many programs two ways judge differently."""
    ways = {name: Way() for name in ("a process a program", "one after the other", "a process a test")}
    differ = 0
    each = OneProcessEach(sandbox)
    with ThreadPoolExecutor(cores) as pool:

        def together(task: Task) -> list[Verdict]:
            return sandbox.run([(code, task.problem) for code in task.codes])

        def in_turn(task: Task) -> list[Verdict]:
            verdicts: list[Verdict] = []
            for code in task.codes:
                verdicts += sandbox.run([(code, task.problem)])
                if verdicts[-1].passed:
                    break
            return verdicts

        def apart(task: Task) -> list[Verdict]:
            return list(pool.map(lambda code: each.run([(code, task.separate)])[0], task.codes))

        choices: dict[str, Callable[[Task], list[Verdict]]] = dict(zip(ways, (together, in_turn, apart), strict=True))
        for task in tasks:
            verdicts: dict[str, list[Verdict]] = {}
            for name, choose in choices.items():
                times, used = [], []
                for _ in range(1 if task.endless else REPETITIONS):
                    cpu, started = cpu_seconds(), perf_counter()
                    verdicts[name] = choose(task)
                    times.append(perf_counter() - started)
                    used.append(cpu_seconds() - cpu)
                ways[name].seconds.append(median(times))
                ways[name].cpu.append(median(used))
                ways[name].runs += len(verdicts[name])
                ways[name].timeouts += sum("Timeout" in verdict.detail for verdict in verdicts[name])
            one, other = verdicts["a process a program"], verdicts["a process a test"]
            differ += sum(left.passed is not right.passed for left, right in zip(one, other, strict=True))
    return ways, differ


def mixed(plain: Sequence[float], endless: Sequence[float]) -> list[float]:
    """The times of all tasks where every fourth is the one with an endless program."""
    return [endless[place // EVERY] if place % EVERY == 0 else value for place, value in enumerate(plain)]


def whole_of(scaler: CodeScaler, task: Task, device: str) -> tuple[float, float, float]:
    """Seconds from a task's answers to the choice; of them those outside the model, and those of the tokeniser."""
    assert isinstance(scaler.scorer, TransformersScorer)
    stats = scaler.scorer.stats
    forward, encode = stats.forward_seconds, stats.encode_seconds
    wait(device)
    started = perf_counter()
    best_of_n(scaler, task.problem.text, task.answers)
    seconds = perf_counter() - started
    return seconds, seconds - (stats.forward_seconds - forward), stats.encode_seconds - encode


def by_model(
    size: str, options: Namespace, tasks: Sequence[Task], endless: Sequence[Task]
) -> tuple[Any, dict[str, Any]]:
    """The model, and its times: lists of seconds, a number for each problem, and counts."""
    tokenizer = pretrained(AutoTokenizer, REWARD_MODEL)
    model = random_model(size, options.device, vocabulary=len(tokenizer) if options.tiny else 0)
    scorer = TransformersScorer(model, tokenizer=tokenizer, cache_size=0)
    scaler = CodeScaler(scorer, config=CodeScalerConfig())
    started = perf_counter()
    whole_of(scaler, tasks[0], options.device)
    found: dict[str, Any] = {"very_first_call": perf_counter() - started}
    stats = replace(scorer.stats)
    both = [*tasks, *endless]
    passes = [[whole_of(scaler, task, options.device) for task in both] for _ in range(REPETITIONS)]
    found["first_pass"] = [whole for whole, _, _ in passes[0]][: len(tasks)]  # of these shapes, so kernels are chosen
    whole, host, encode = (
        [median(one[place][part] for one in passes[1:]) for place in range(len(both))] for part in range(3)
    )
    found["whole"], found["whole_endless"] = whole[: len(tasks)], whole[len(tasks) :]
    found["host"], found["encode"] = host[: len(tasks)], encode[: len(tasks)]
    items = scorer.stats.items - stats.items
    found["tokens"] = {
        "a_sample": round((scorer.stats.real_tokens - stats.real_tokens) / items, 1),
        "computed_a_problem": round((scorer.stats.computed_tokens - stats.computed_tokens) / items * CANDIDATES),
    }
    engine = scorer._loaded
    assert engine is not None
    found["prefixes_are_shared"] = engine.shares  # False if the check of its kernels failed
    logits = tree_logits if engine.shares else padded_logits
    prompt, completion = (48, 24) if options.tiny else (PROMPT, COMPLETION)
    rows = synthetic_items(model, groups=len(tasks) + 1, group=CANDIDATES, prompt=prompt, completion=completion)
    groups = [rows[start : start + CANDIDATES] for start in range(0, len(rows), CANDIDATES)]
    times: list[list[float]] = []
    for _ in range(REPETITIONS):
        times.append([])
        for group in groups:
            wait(options.device)
            started = perf_counter()
            list(logits(model, group, max_tokens=engine.max_tokens))
            times[-1].append(perf_counter() - started)
    found["forward"] = [median(column) for column in zip(*times, strict=True)][1:]  # the first warms up
    found["forward_tokens"] = {
        "shared": prompt,
        "own": round(fmean(len(row) - prompt for row in rows), 1),
    }
    return model, found


def multiples(tests: Sequence[float], model: Sequence[float]) -> dict[str, float]:
    """Tests by reward model: of each problem, the median; of the percentiles; of the means."""
    one, other = spread(tests), spread(model)
    pairs = median(left / right for left, right in zip(tests, model, strict=True))
    return {"median": round(pairs, 3), **{f"of_{name}": round(one[name] / other[name], 3) for name in one}}


def main() -> None:
    """A line for the tests, then a line for each reward model."""
    options = arguments(__doc__)
    timeout = 0.5 if options.tiny else TIMEOUT
    cores = len(os.sched_getaffinity(0))
    tasks = tasks_of_slice(4 if options.tiny else None)
    endless = with_endless(tasks)
    started = perf_counter()
    with Sandbox(workers=cores, timeout=timeout) as sandbox:
        start = perf_counter() - started
        sandbox.run([(code, tasks[0].problem) for code in tasks[0].codes])
        plain, differ = by_tests(tasks, sandbox, cores)
        late, _ = by_tests(endless, sandbox, cores)
        cage = sandbox.isolation
    tests = {
        name: {"as_they_are": way.seconds, "one_endless": mixed(way.seconds, late[name].seconds)}
        for name, way in plain.items()
    }
    comparison = {
        "problems": len(tasks),
        "candidates": CANDIDATES,
        "programs": "different ones of CodeGen-16B for HumanEval, the same for tests and reward model",
        "tests": "HumanEval's, given; writing tests costs nothing here",
        "assertions_a_problem": median(len(task.separate.tests) for task in tasks),
        "timeout_seconds": timeout,
        "cores_for_tests": cores,
        "one_endless": f"1 of {CANDIDATES} programs never ends, in {len(endless)} problems; at places 0, 5, 10, 15",
        "warm": "sandbox started, model loaded, each timed after a first pass; no score remembered",
        "extraction": "counted with the reward model alone",
        "at_a_time": "one problem",
    }
    record(
        options.output,
        "choosing",
        SimpleNamespace(device=torch.device("cpu"), dtype="none"),
        part="tests",
        comparison={**comparison, "cage": cage, "processes_a_run": 2, "seconds_to_start_the_sandbox": round(start, 3)},
        ways={
            name: {
                "wall_ms": {kind: spread(values) for kind, values in tests[name].items()},
                "cpu_ms": {"as_they_are": spread(way.cpu), "one_endless": spread(mixed(way.cpu, late[name].cpu))},
                "programs_run_a_problem": round(way.runs / len(tasks), 2),
                "share_of_runs_that_time_out": {
                    "as_they_are": round(way.timeouts / way.runs, 4),
                    "in_problems_with_an_endless_one": round(late[name].timeouts / late[name].runs, 4),
                },
            }
            for name, way in plain.items()
        },
        judged_differently=differ,
    )
    for size in ("tiny",) if options.tiny else ("1.7B", "8B"):
        model, found = by_model(size, options, tasks, endless)
        ours = {"whole": {"as_they_are": found["whole"], "one_endless": mixed(found["whole"], found["whole_endless"])}}
        added = [forward + host for forward, host in zip(found["forward"], found["host"], strict=True)]
        ours["sum"] = dict.fromkeys(("as_they_are", "one_endless"), added)
        record(
            options.output,
            "choosing",
            model,
            part="reward model",
            size=size,
            parameters=sum(weight.numel() for weight in model.parameters()),
            comparison=comparison,
            wall_ms={
                **{name: spread(values["as_they_are"]) for name, values in ours.items()},
                **{name: spread(found[name]) for name in ("forward", "host", "encode", "first_pass")},
                "very_first_call": round(found["very_first_call"] * 1e3, 1),
            },
            tokens_of_whole=found["tokens"],
            tokens_of_forward=found["forward_tokens"],
            prefixes_are_shared=found["prefixes_are_shared"],
            tests_by_reward_model={
                name: {
                    way: {kind: multiples(times[kind], values[kind]) for kind in values}
                    for way, times in tests.items()
                }
                for name, values in ours.items()
            },
        )
        del model
        collect()
        if options.device != "cpu":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
