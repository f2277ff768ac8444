"""One claim: a million rollouts are read in less than 2 GB of memory, whatever host wrote them.

    python benchmarks/bench_rollouts.py

It writes them as verl does (a file of JSON lines per step, prompts with chat roles), as TRL does (a parquet file per
step) and as plain JSON lines, 1,024 completions of 1,000 characters per step, and reads each format in its own
process. It takes a few minutes and 2 GB of disk in the temporary folder, and needs Linux. The last line is JSON:
rollouts per second of processor time, and the peak resident memory of each reader, its imports included.
"""

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

STEP, CHARS = 1024, 1000
READ = """
import sys, time
from codescaler_plugin.data.rollouts import read_rollouts
start, count, step = time.process_time(), 0, -1
for rollout in read_rollouts(sys.argv[1]):
    count += 1
    assert step <= (rollout.step or 0) and rollout.problem.startswith("Problem "), rollout
    step = rollout.step or 0
seconds = time.process_time() - start
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]  # ru_maxrss is inherited
print(count, seconds, int(peak) // 1024)
"""

Rows = list[dict[str, Any]]


def steps(count: int, prompt: str) -> Iterator[tuple[int, Rows]]:
    """The rows of each step."""
    for start in range(0, count, STEP):
        step = start // STEP
        numbers = range(start, min(count, start + STEP))
        yield (
            step,
            [
                {
                    "prompt": prompt.format(number // 8),
                    "completion": f"```python\nx = {number}\n```".ljust(CHARS, "#"),
                    "step": step,
                }
                for number in numbers
            ],
        )


def write_verl(folder: Path, count: int) -> Path:
    """`trainer.rollout_data_dir`."""
    for step, rows in steps(count, "system\nBe good.\nuser\nProblem {}\nassistant\n"):
        with (folder / f"{step}.jsonl").open("w") as lines:
            for row in rows:
                row = {"input": row["prompt"], "output": row["completion"], "gts": "", "score": 0.0, "step": step}
                lines.write(json.dumps(row) + "\n")
    return folder


def write_trl(folder: Path, count: int) -> Path:
    """`log_completions=True`."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    folder = folder / "completions"
    folder.mkdir()
    for step, rows in steps(count, "Problem {}"):
        table = arrow.Table.from_pylist([row | {"reward": 0.0, "advantage": 0.0} for row in rows])
        parquet.write_table(table, folder / f"completions_{step:05d}.parquet")
    return folder


def write_lines(folder: Path, count: int) -> Path:
    """One file."""
    file = folder / "rollouts.jsonl"
    with file.open("w") as lines:
        for _, rows in steps(count, "Problem {}"):
            lines.writelines(json.dumps(row) + "\n" for row in rows)
    return file


def main() -> None:
    """Write, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    count = parser.parse_args().count
    result: dict[str, Any] = {"benchmark": "rollouts", "rollouts": count, "python": platform.python_version()}
    writers: dict[str, Callable[[Path, int], Path]] = {"verl": write_verl, "trl": write_trl, "jsonl": write_lines}
    for name, write in writers.items():
        with TemporaryDirectory() as folder:
            path = write(Path(folder), count)
            done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True)
        read, seconds, peak = done.stdout.split()
        if int(read) != count:
            sys.exit(f"{name}: {read} of {count} were read")
        result[name] = {"per_cpu_second": round(count / float(seconds)), "peak_rss_mb": int(peak)}
        print(f"{name}: {result[name]}", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
