"""What extraction makes of real completions: a histogram of the statuses for each source, and samples to read.

    python -m tests.integration.statuses [STATUS]

With a status, 30 of its completions of each source, drawn by seed 0, with the explanation and the end of the code.
Needs the development data, as `test_real_completions` does.
"""

import gzip
import json
import sys
from collections import Counter
from random import Random
from typing import Any

from codescaler_plugin import Status
from codescaler_plugin.extraction import extract_all
from tests.integration.test_real_completions import DATA, programs, rows

READ = 30


def sources() -> dict[str, tuple[list[str], list[bool] | None, dict[str, Any]]]:
    """Source -> completions, whether each is right (None: unknown), how they are extracted."""
    found: dict[str, tuple[list[str], list[bool] | None, dict[str, Any]]] = {}
    for source, samples in programs().items():
        codes, passes = [code for code, _ in samples], [passed for _, passed in samples]
        found[f"bare {source}"] = codes, passes, {"extraction": "bare"}
        found[f"single {source}"] = [f"Here it is:\n\n```python\n{code}\n```\n" for code in codes], passes, {}
    raw = rows("codet/HumanEval_codegen16B_temp0.8*")
    texts = [row["prompt"] + sample for row in raw for sample in row["samples"]]
    found["bare humaneval/codegen-16b, not cut at stop words"] = texts, None, {"extraction": "bare"}
    for path in sorted((DATA / "leetcodedataset").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            texts = [row["response"] for row in map(json.loads, file) if row["response"]]
        for extraction in ("single", "last"):
            found[f"{extraction} {path.name.partition('-v')[0]} {len(texts)}"] = (
                texts,
                None,
                {"extraction": extraction},
            )
    octopack = list(rows("octopack/*.jsonl"))
    for solution in ("canonical_solution", "buggy_solution"):
        texts = [row["declaration"] + row[solution] for row in octopack]
        found[f"bare octopack {solution}"] = texts, None, {"extraction": "bare"}
    rm_bench = json.loads((DATA / "rm-bench" / "code_sample.json").read_text(encoding="utf-8"))
    for language in sorted({row["language"] for row in rm_bench}):
        for side in ("chosen", "rejected"):
            texts = [row[side][2] for row in rm_bench if row["language"] == language]
            settings = {"extraction": "last", "language": language}
            found[f"last rm-bench {language} {side}"] = texts, None, settings
    return found


def main() -> None:
    """Print the histograms, or the samples of one status."""
    wanted = sys.argv[1] if sys.argv[1:] else ""
    right, zeros = Counter[str](), Counter[str]()
    for source, (texts, passes, settings) in sources().items():
        found = extract_all(texts, **settings)
        counts = Counter(str(extraction.status) for extraction in found)
        line = f"{source}: " + ", ".join(f"{status} {count}" for status, count in counts.most_common())
        if passes is not None:
            usable = [
                extraction.status is Status.OK for extraction, passed in zip(found, passes, strict=True) if passed
            ]
            line += f"; of {len(usable)} that are right, {usable.count(False)} are not ok"
            policy = source.partition(" ")[0]
            right[policy] += len(usable)
            zeros[policy] += usable.count(False)
        print(line)  # noqa: T201
        invalid = [pair for pair in zip(texts, found, strict=True) if pair[1].status == wanted]
        for text, extraction in Random(0).sample(invalid, min(READ, len(invalid))):
            print("-" * 100, extraction.explanation, text[-600:], sep="\n")  # noqa: T201
    for policy, count in right.items():
        print(f"false zeros, {policy}: {zeros[policy]} of {count} right, {zeros[policy] / count:.3%}")  # noqa: T201


if __name__ == "__main__":
    main()
