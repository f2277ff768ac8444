"""One claim: 51,000 pairs from 500,000 verdicts in at most two minutes on one core.

    python benchmarks/bench_mining.py

The input is made here: 25,000 problems with 20 verdicts each over 100 steps, as an on-policy run writes them. Programs
are the LLM-written ones of the miniature's data, joined to 700 characters, with a constant of the problem. 24% repeat
another program of their problem exactly and 5% in another layout, so that 7% of the programs need their syntax trees
compared: the shares of CodeGen-16B's 16,400 samples for HumanEval. A tenth have no valid code, a third pass, and 400
problem texts are near-duplicates. Decontamination checks 2,000 evaluation problems. The time includes reading the JSON
lines, mining, and writing the pairs. The last line is JSON. `load` is the mean time of a fixed piece of work over its
shortest time: on a busy machine, processor time is too high by this factor.
"""

import argparse
import gzip
import json
import platform
import resource
from collections.abc import Iterator
from pathlib import Path
from random import Random
from statistics import fmean
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

from codescaler_plugin.data.pairs import write_pairs
from codescaler_plugin.data.rollouts import rows_of
from codescaler_plugin.extraction.fingerprint import fingerprint
from codescaler_plugin.preference.mining import mine_pairs

DATA = Path(__file__).parents[1] / "recipes" / "miniature" / "data" / "real_pairs.jsonl.gz"
PROBLEMS, VERDICTS, STEPS, PAIRS, EVALUATION = 25_000, 20, 100, 51_000, 2_000
CODE_CHARS, PROBLEM_WORDS, TESTS = 700, 150, 12
REPEATED, RELAID, INVALID, PASSING = 0.24, 0.05, 0.10, 1 / 3


def problem_text(rng: Random, words: list[str]) -> str:
    """A statement as long as that of a contest."""
    return " ".join(rng.choices(words, k=PROBLEM_WORDS))


def verdicts(rng: Random, texts: list[str], programs: list[str]) -> Iterator[dict[str, Any]]:
    """Rows as `codescaler verify` writes them."""
    for number, text in enumerate(texts):
        base = ""
        while len(base) < CODE_CHARS:
            base += rng.choice(programs)
        written: list[tuple[str, int]] = []
        for _ in range(VERDICTS):
            chance = rng.random()
            if written and chance < REPEATED + RELAID:
                code, passed = rng.choice(written)
                if chance > REPEATED:
                    code = "# another layout\n" + code.replace("    ", "  ").replace(" = ", "=")
            else:
                passed = TESTS if rng.random() < PASSING else rng.choice((0, 0, 0, 1, 3, 6, 9, 11))
                code = f"{base}\nanswer = {number} * {rng.randrange(10**6)} + {passed}\n"
                written.append((code, passed))
            valid = rng.random() >= INVALID
            yield {
                "problem": text,
                "problem_id": f"p/{number}",
                "completion": f"```python\n{code}```",
                "step": number % STEPS,
                "source": "bench",
                "code": code if valid else "",
                "status": "ok" if valid else "no_block",
                "passed": valid and passed == TESTS,
                "tests_passed": passed if valid else 0,
                "tests_total": TESTS,
                "detail": "",
                "seconds": 0.01,
                "flaky": False,
            }


def fixed_work(programs: list[str]) -> list[float]:
    """Processor seconds of each of many runs of the same work."""
    seconds = []
    for _ in range(200):
        start = process_time()
        for code in programs[:20]:
            fingerprint(code)
        seconds.append(process_time() - start)
    return seconds


def main() -> None:
    """Make the input, mine it, print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of problems and pairs")
    scale = parser.parse_args().scale
    rng = Random(0)
    with gzip.open(DATA, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    words = sorted({word for row in rows for word in row["problem"].split()})
    texts = [problem_text(rng, words) for _ in range(int(PROBLEMS * scale))]
    for index in range(len(texts) // 62):
        texts[-index - 1] = texts[index] + " Mind the limits."
    evaluation = [problem_text(rng, words) for _ in range(EVALUATION - 20)] + texts[100:120]
    with TemporaryDirectory() as folder:
        verdict_file, pair_file = Path(folder) / "verdicts.jsonl", Path(folder) / "pairs.jsonl"
        with verdict_file.open("w", encoding="utf-8") as lines:
            for row in verdicts(rng, texts, [row["chosen"] for row in rows]):
                lines.write(json.dumps(row) + "\n")
        fixed = fixed_work([row["chosen"] for row in rows])
        start, cpu_start = perf_counter(), process_time()
        pairs, report = mine_pairs(
            (row for _, _, row in rows_of(verdict_file)),
            max_pairs=int(PAIRS * scale),
            hard=0.3,
            held_out=0.02,
            evaluation={"bench": evaluation},
        )
        write_pairs(pairs, pair_file)
        seconds, cpu_seconds = perf_counter() - start, process_time() - cpu_start
        size = verdict_file.stat().st_size
    fixed += fixed_work([row["chosen"] for row in rows])
    result = {
        "benchmark": "mining",
        "verdicts": report.rows,
        "input_mb": round(size / 1e6),
        "pairs": len(pairs),
        "near_miss_share": round(report.near_misses / max(1, len(pairs)), 3),
        "dropped": report.dropped,
        "contaminated": len(report.contamination),
        "near_clusters": len(report.near_clusters),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "load": round(fmean(fixed) / min(fixed), 2),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
