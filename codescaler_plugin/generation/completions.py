"""The completions of a run, in a file that an interrupted run resumes."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codescaler_plugin.data.outputs import check_folder, open_resumable
from codescaler_plugin.errors import DataError
from codescaler_plugin.generation.prompts import prompt_for
from codescaler_plugin.generation.sampling import Completer, Sampling
from codescaler_plugin.records import Problem


def generate(
    benchmarks: Mapping[str, Sequence[Problem]],
    complete: Completer,
    folder: Path,
    *,
    n: int,
    sampling: Sampling,
    model: str,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write n completions of every problem to `generations.jsonl` in a folder; returns the file.

    A line holds `problem_id`, `problem`, `completion` and `source`, the name of the benchmark. Lines are in the order
    in which the problems are finished. An interrupted run resumes, and a run with a larger n writes what is missing.
    The folder's `sampling.json` holds the model and the settings, which a resumed run must share. `complete` is called
    from `threads` threads. `progress` receives the number of completions just found in the file or written to it.

    Raises:
        ConfigError: the folder holds completions of another model or other settings, or a row without a problem id.
        DataError: two problems have the same id.
        GenerationError: the server failed. Completions that are already written stay.
    """
    check_folder(folder)
    path = folder / "generations.jsonl"
    jobs = [(name, problem) for name, problems in benchmarks.items() for problem in problems]
    ids = Counter(problem.id for _, problem in jobs)
    if repeated := [problem_id for problem_id, count in ids.items() if count > 1]:
        raise DataError(f"problem id {repeated[0]!r} stands for more than one problem: evaluate the files one by one")
    report = progress or (lambda _: None)
    written: Counter[str] = Counter()

    def claim(row: Any) -> str:
        problem_id = row.get("problem_id") if isinstance(row, dict) else None
        if not isinstance(problem_id, str):
            return "is no completion of a run: give another output"
        written[problem_id] += 1
        return ""

    made_with = {"model": model, **asdict(sampling)}
    with open_resumable(path, claim, companion=folder / "sampling.json", made_with=made_with) as file:
        report(sum(min(n, written[problem.id]) for _, problem in jobs))
        pool = ThreadPoolExecutor(threads, thread_name_prefix="generation")
        try:
            pending = {}
            for name, problem in jobs:
                if (missing := n - written[problem.id]) > 0:
                    future = pool.submit(complete, prompt_for(problem, instruct=sampling.instruct), missing)
                    pending[future] = name, problem
            for future in as_completed(pending):
                name, problem = pending[future]
                for completion in future.result():
                    row = {"problem_id": problem.id, "problem": problem.text, "completion": completion, "source": name}
                    file.write((json.dumps(row) + "\n").encode("ascii"))
                file.flush()
                report(n - written[problem.id])
        finally:
            pool.shutdown(cancel_futures=True)
    return path
