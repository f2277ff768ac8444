"""One claim: what choosing the best of N costs and wins, by reward model, by tests, and by both, on your machine.

    python benchmarks/bench_latency.py [--humaneval DATA] [--device cuda --model LARK-Lab/CodeScaler-8B]

Four strategies choose among the same candidates, a problem at a time, in turns: reward model; tests with all of a
program's in one process; tests with a process each; a cascade (reward model, then tests where its calibrated
confidence is below --target). Both kinds of testing take programs in their original order, run duplicates once, and
stop at the first that passes: the cheapest use of right tests. A process each stops a program at its first failure.

A process each needs problems of two tests or more; HumanEval's have one, an assertion script, so it is left out there
and the conditions say so.

Printed: p50 and p95 of wall and CPU seconds a problem, accuracy, share of runs that time out, who wins, and the
conditions of a fair comparison; then what the reward models of the paper would take on GPUs by name, which is computed
and not measured. The last line of stdout is JSON. With --output FOLDER, the results are kept there as well, and
`codescaler report FOLDER` shows them.

DATA is that of bench_selection.py. Without it, and without --candidates FILE (what `codescaler verify` wrote) and
--tests FILE (what it was given): the embedded policy's samples on held-out problems of the miniature, where programs
are tiny and tests are few.
"""

import argparse
import json
import os
import platform
import resource
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean, median, quantiles
from time import perf_counter
from typing import Any

import psutil
import torch
from bench_selection import humaneval

from codescaler_plugin import CodeScaler, CodeScalerConfig
from codescaler_plugin.builtin import HELD_OUT_PROBLEMS, POLICY
from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.evaluation.best_of_n import read_candidates
from codescaler_plugin.evaluation.latency import ALONE, LatencyResult, Multiple, Strategy, Times
from codescaler_plugin.evaluation.summary import Summary, write_summary
from codescaler_plugin.execution.executor import Executor, Job
from codescaler_plugin.execution.jobs import TIMEOUT
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.records import CallTest, Problem, ScriptTest, Verdict
from codescaler_plugin.selection.cascade import CascadeConfig, decide_by_tests
from codescaler_plugin.selection.planning import Labelled, fit_margins, is_right, keep_order
from codescaler_plugin.selection.ranking import best_of_n
from codescaler_plugin.selection.records import Selection

PARAMETERS = {"0.6B": 0.44e9, "1.7B": 1.41e9, "4B": 3.63e9, "8B": 6.95e9}  # of Qwen3, without embeddings
PEAK = {"H100 SXM": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "RTX 4090": 165e12}  # bf16 dense FLOP/s
SHARE_OF_PEAK = 0.45  # assumed
CORES = (1, 16)

Task = tuple[Problem, list[str], list[bool]]
"""A problem with tests, its candidates, and which of them pass."""


@dataclass
class Measured:
    """Costs and results of one strategy, a number for each problem."""

    wall: list[float]
    cpu: list[float]
    right: list[bool]
    runs: int = 0
    timeouts: int = 0

    def strategy(self, alone: "Measured | None") -> Strategy:
        """Means and percentiles, and the times over those of the reward model alone; None if it is that."""
        return Strategy(
            accuracy=round(fmean(self.right), 4),
            wall=times(self.wall),
            cpu=times(self.cpu),
            programs_run=round(self.runs / len(self.right), 3),
            timeouts=round(self.timeouts / self.runs, 4) if self.runs else None,
            wall_multiple=None if alone is None else multiple(self.wall, alone.wall),
            cpu_multiple=None if alone is None else multiple(self.cpu, alone.cpu),
        )


def times(seconds: Sequence[float]) -> Times:
    """Milliseconds of a problem."""
    p95 = quantiles(seconds, n=20, method="inclusive")[-1]
    return Times(*(round(value * 1e3, 2) for value in (median(seconds), p95, fmean(seconds))))


def multiple(seconds: Sequence[float], alone: Sequence[float]) -> Multiple:
    """Times over those of the reward model alone, problem by problem."""
    paired = [other / fast for other, fast in zip(seconds, alone, strict=True) if fast > 0]
    return Multiple(round(median(paired), 2), round(sum(seconds) / sum(alone), 2))


class Counted:
    """An executor that counts runs and timeouts."""

    def __init__(self, executor: Executor) -> None:
        self.executor, self.runs, self.timeouts = executor, 0, 0

    def run(self, jobs: Sequence[Job], *, progress: Any = None) -> list[Verdict]:
        """As the executor."""
        verdicts = self.executor.run(jobs, progress=progress)
        self.runs += len(jobs)
        self.timeouts += sum("Timeout" in verdict.detail for verdict in verdicts)
        return verdicts


class OneProcessEach:
    """An executor that runs every test in a process of its own, up to the first failure."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    def run(self, jobs: Sequence[Job], *, progress: Any = None) -> list[Verdict]:  # noqa: ARG002
        """A verdict per job."""
        return [self._verdict(*job) for job in jobs]

    def _verdict(self, code: str, problem: Problem) -> Verdict:
        for index, test in enumerate(problem.tests):
            (verdict,) = self.executor.run([(code, replace(problem, tests=(test,)))])  # type: ignore[arg-type]
            if not verdict.passed:
                return replace(verdict, tests_passed=index, tests_total=len(problem.tests))
        return Verdict(True, tests_passed=len(problem.tests), tests_total=len(problem.tests))


def cpu_seconds() -> float:
    """CPU of this process and of all it started, living or gone."""
    total = sum(resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in (0, -1))
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def miniature(count: int, candidates: int) -> list[Task]:
    """Candidates of the embedded policy, verified here."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from codescaler_plugin.evaluation.policy import verify_completions
    from codescaler_plugin.generation.local import sample_completions

    torch.manual_seed(0)
    problems = list(islice(read_problems(HELD_OUT_PROBLEMS), count))
    policy = pretrained(AutoModelForCausalLM, POLICY, dtype=torch.float32).eval()
    words = pretrained(AutoTokenizer, POLICY)
    completions = sample_completions(policy, words, [problem.text for problem in problems], n=candidates)
    passed = verify_completions(completions, problems).passed
    return list(zip(problems, completions, passed, strict=True))


def codegen(data: Path, count: int, candidates: int) -> list[Task]:
    """CodeGen's samples for HumanEval, as fenced completions; problems from all over the set."""
    rows = humaneval(data)
    tests = {problem.id: problem for problem in read_problems(data / "humaneval" / "HumanEval.jsonl.gz")}
    return [
        (tests[name], [f"```python\n{code}\n```" for code in codes[:candidates]], passed[:candidates])
        for name, _, codes, passed in rows[:: max(1, len(rows) // count)][:count]
    ]


def from_file(file: Path, tests: Path, count: int, candidates: int) -> list[Task]:
    """Candidates of a file, as fenced completions."""
    problems = {problem.id: problem for problem in read_problems(tests)}
    groups = islice((group for group in read_candidates(file) if group.problem_id in problems), count)
    return [
        (
            replace(problems[group.problem_id], text=group.problem),
            [f"```python\n{code}\n```" for code in group.codes[:candidates]],
            list(group.passed[:candidates]),
        )
        for group in groups
    ]


def measure(tasks: Sequence[Task], scaler: CodeScaler, sandbox: Sandbox, target: float) -> dict[str, Measured]:
    """Every strategy on each task, in turns; the cascade's confidence is calibrated on the other half of the tasks."""
    ranked: list[Labelled] = [
        (best_of_n(scaler, problem.text, completions), passed) for problem, completions, passed in tasks
    ]
    fitted = [fit_margins(half) for half in (ranked[1::2], ranked[::2])]
    strategies = {
        name: Measured([], [], []) for name in (ALONE, "tests, one process", "tests, a process each", "cascade")
    }
    if not all(len(problem.tests) > 1 for problem, _, _ in tasks):
        del strategies["tests, a process each"]
    for number, (problem, completions, passed) in enumerate(tasks):
        plain = keep_order(ranked[number][0])

        def tested(executor: Executor, problem: Problem = problem, plain: Selection = plain) -> Selection:
            return decide_by_tests([plain], [problem], executor=executor)[0]

        def both(
            executor: Executor,
            problem: Problem = problem,
            completions: list[str] = completions,
            half: int = number % 2,
        ) -> Selection:
            selection = best_of_n(scaler, problem.text, completions)
            config = CascadeConfig(fitted[half], target)
            return decide_by_tests([selection], [problem], executor=executor, config=config)[0]

        choices: dict[str, Callable[[Executor], Selection]] = {
            ALONE: lambda _, problem=problem, texts=completions: best_of_n(scaler, problem.text, texts),  # type: ignore[misc]
            "tests, one process": tested,
            "tests, a process each": lambda executor, tested=tested: tested(OneProcessEach(executor)),  # type: ignore[misc]
            "cascade": both,
        }
        order = list(strategies)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            executor = Counted(sandbox)
            cpu, start = cpu_seconds(), perf_counter()
            selection = choices[name](executor)
            wall, used = perf_counter() - start, cpu_seconds() - cpu
            measured = strategies[name]
            measured.wall.append(wall)
            measured.cpu.append(used)
            measured.right.append(is_right(selection, passed))
            measured.runs += selection.executions
            measured.timeouts += executor.timeouts
    return strategies


def computed(prompt: int, completion: int, candidates: int, test_cpu: float) -> list[dict[str, Any]]:
    """Milliseconds a candidate by GPU and model beside tests on some cores: 2 FLOP a parameter and token."""
    tokens = prompt / candidates + completion
    rows = []
    for gpu, peak in PEAK.items():
        row: dict[str, Any] = {"gpu": gpu}
        for model, parameters in PARAMETERS.items():
            row[model] = round(2 * parameters * tokens / (peak * SHARE_OF_PEAK) * 1e3, 2)
        rows.append(row)
    for cores in CORES:
        rows.append({"tests on cores": cores, "ms": round(test_cpu * 1e3 / cores, 2)})
    return rows


def conditions(
    tasks: Sequence[Task], options: argparse.Namespace, scaler: CodeScaler, sandbox: Sandbox
) -> dict[str, Any]:
    """What a reader must know to compare."""
    kinds = {CallTest: "calls", ScriptTest: "assertions in a script"}
    separate = all(len(problem.tests) > 1 for problem, _, _ in tasks)
    return {
        "candidates": "the same for every strategy",
        "problems": len(tasks),
        "candidates_a_problem": round(fmean(len(completions) for _, completions, _ in tasks), 2),
        "tests_a_problem": median(len(problem.tests) for problem, _, _ in tasks),
        "style_of_tests": kinds.get(type(tasks[0][0].tests[0]), "stdin and stdout"),
        "a_process_for_each_test": "measured" if separate else "left out: a problem has a single test",
        "tests": "existed before; writing them costs nothing here",
        "timeout_seconds": options.timeout,
        "isolation": sandbox.isolation,
        "interpreter": "forked warm; the embedded one starts no interpreter for a program",
        "cores_for_tests": 1,
        "torch_threads": torch.get_num_threads(),
        "cores_of_the_machine": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "model": scaler.config.model,
        **placed(scaler),
        "scores_remembered": "no",
        "extraction_of_code": "counted with the reward model and the cascade, not with tests",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def placed(scaler: CodeScaler) -> dict[str, Any]:
    """Size, dtype and device of a reward model that has scored; not known of one behind a server."""
    engine = getattr(scaler.scorer, "_loaded", None)
    if engine is None:
        return dict.fromkeys(("parameters", "dtype", "gpu"), "not known: a server holds the model")
    device = engine.model.device
    return {
        "parameters": sum(weight.numel() for weight in engine.model.parameters()),
        "dtype": str(engine.model.dtype).removeprefix("torch."),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def main() -> None:
    """Print the table, the conditions, the computed part, then the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="builtin", help="reward model, as for load_scorer")
    parser.add_argument("--device", help="torch device; else a GPU if there is one")
    parser.add_argument("--candidates", type=Path)
    parser.add_argument("--tests", type=Path)
    parser.add_argument("--humaneval", type=Path, metavar="DATA")
    parser.add_argument("--problems", type=int, default=64)
    parser.add_argument("-n", type=int, default=8, help="candidates a problem")
    parser.add_argument("--target", type=float, default=0.9, help="the cascade's confidence")
    parser.add_argument("--timeout", type=float, default=TIMEOUT)
    parser.add_argument("--prompt-tokens", type=int, default=480, help="for the computed part")
    parser.add_argument("--completion-tokens", type=int, default=216, help="for the computed part")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="keep latency.NAME.summary.json here")
    options = parser.parse_args()
    if (options.candidates is None) != (options.tests is None):
        parser.error("--candidates and --tests belong together")
    torch.set_num_threads(1)
    if options.humaneval is not None:
        data, tasks = "humaneval", codegen(options.humaneval, options.problems, options.n)
    elif options.candidates is None:
        data, tasks = "miniature", miniature(options.problems, options.n)
    else:
        data = options.candidates.name.split(".")[0]
        tasks = from_file(options.candidates, options.tests, options.problems, options.n)
    if len(tasks) < 4:
        parser.error(f"{len(tasks)} problems have candidates and tests: at least 4 are needed")
    scaler = CodeScaler(config=CodeScalerConfig.from_env(model=options.model, device=options.device, cache_size=0))
    scaler.judge([tasks[0][0].text], tasks[0][1][:1])  # loads the model
    with Sandbox(workers=1, timeout=options.timeout) as sandbox:
        strategies = measure(tasks, scaler, sandbox, options.target)
        facts = conditions(tasks, options, scaler, sandbox)
    alone = strategies[ALONE]
    rows = {name: one.strategy(None if name == ALONE else alone) for name, one in strategies.items()}
    result = LatencyResult(rows, facts)
    heads = (("a problem", 22), ("wall ms p50", 13), ("p95", 9), ("CPU ms p50", 12), ("p95", 9), ("solved", 8))
    print("".join(f"{head:>{width}}" for head, width in (*heads, ("runs", 7), ("timeouts", 10))))
    for name, row in rows.items():
        print(
            f"{name:>22}{row.wall.p50:>13.1f}{row.wall.p95:>9.1f}{row.cpu.p50:>12.1f}"
            f"{row.cpu.p95:>9.1f}{row.accuracy:>8.3f}{row.programs_run:>7.2f}"
            f"{'' if row.timeouts is None else f'{row.timeouts:.1%}':>10}"
        )
    print("\nTime over that of the reward model; below 1 the reward model is the slower one:")
    for name, row in rows.items():
        for clock, ratio in (("wall", row.wall_multiple), ("cpu", row.cpu_multiple)):
            if ratio is not None:
                print(f"{name:>22} {clock:>4}: median {ratio.median:.2f}, of means {ratio.of_means:.2f}")
    print(
        "\nThe paper states 10x lower latency than unit tests; its protocol is not public. That figure is the paper's."
    )
    print("Conditions: " + "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()))
    in_process = strategies["tests, one process"]
    test_cpu = sum(in_process.cpu) / max(1, in_process.runs)
    gpus = computed(options.prompt_tokens, options.completion_tokens, options.n, test_cpu)
    print(
        f"\nComputed, not measured: ms a candidate, {options.prompt_tokens} shared, {options.completion_tokens} own\n"
        f"tokens, {options.n} a problem, 2 FLOP a parameter and token, {SHARE_OF_PEAK:.0%} of a GPU's dense bf16 peak"
    )
    print(f"{'':>12}" + "".join(f"{model:>8}" for model in PARAMETERS))
    for of_gpu in gpus:
        if "gpu" in of_gpu:
            print(f"{of_gpu['gpu']:>12}" + "".join(f"{of_gpu[model]:>8.2f}" for model in PARAMETERS))
        else:
            print(f"beside the tests above (measured CPU) on {of_gpu['tests on cores']} cores: {of_gpu['ms']} ms")
    if options.output is not None:
        command = f"python benchmarks/bench_latency.py {shlex.join(sys.argv[1:])}"
        summary = Summary(data, scaler.config.model, result, {"command": command.strip()})
        print(f"wrote {write_summary(options.output, summary)}")
    print(json.dumps({"benchmark": "latency", **result.to_json(), "computed_ms_a_candidate": gpus}))


if __name__ == "__main__":
    main()
