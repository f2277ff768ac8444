"""What extraction makes of programs that models wrote. `pytest -s` prints the histogram of each source."""

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from codescaler_plugin import Status
from codescaler_plugin.extraction import extract_all

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the development data is not here")
GREATEST_FALSE_ZERO_RATE = 0.005


@cache
def programs() -> dict[str, list[tuple[str, bool]]]:
    """Source -> programs as their models wrote them, and whether each passes its tests."""
    with gzip.open(DATA / "humaneval" / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        prompts = {row["task_id"]: row["prompt"] for row in map(json.loads, file)}
    found: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for row in rows("codet/humaneval_codegen16B_labeled_*"):
        for body, result in zip(row["completions"], row["results"], strict=True):
            found["humaneval/codegen-16b"].append((prompts[row["task_id"]] + body, result == "P"))
    for folder in ("humaneval", "mbpp"):
        for path in sorted((DATA / "ldb" / folder).glob("seed-*.jsonl")):
            source = f"{folder}/{path.stem.removeprefix('seed-')}"
            for row in rows(f"ldb/{folder}/{path.name}"):
                solution = row["solution"] or ""
                # The answers of `reflexion` are the bodies of functions.
                code = row["prompt"] + solution if source == "humaneval/reflexion" else solution
                found[source].append((code, bool(row["is_solved"])))
    return dict(found)


def rows(pattern: str) -> Iterator[dict]:
    for path in sorted(DATA.glob(pattern)):
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


@pytest.mark.parametrize("extraction", ["bare", "single"])
def test_of_programs_that_pass_their_tests_hardly_any_is_worth_nothing(extraction: str) -> None:
    passed = zeros = 0
    for source, samples in programs().items():
        texts = [code if extraction == "bare" else f"Here it is:\n\n```python\n{code}\n```\n" for code, _ in samples]
        statuses = [extraction.status for extraction in extract_all(texts, extraction=extraction)]
        right = [status for status, (_, passes) in zip(statuses, samples, strict=True) if passes]
        wrong = sum(status is not Status.OK for status in right)
        counts = ", ".join(f"{status} {count}" for status, count in Counter(statuses).most_common())
        print(f"{extraction} {source}: {counts}; of {len(right)} that pass, {wrong} are not ok")  # noqa: T201
        passed, zeros = passed + len(right), zeros + wrong
    assert passed > 5000
    assert zeros / passed < GREATEST_FALSE_ZERO_RATE


@pytest.mark.parametrize("language", ["cpp", "go", "java", "javascript", "python", "rust"])
def test_markdown_answers_of_rm_bench_are_programs(language: str) -> None:
    """The third of the three styles; the first two have no fences."""
    samples = json.loads((DATA / "rm-bench" / "code_sample.json").read_text(encoding="utf-8"))
    answers = [
        row["chosen"][2] for row in samples if row["language"] in (language, {"javascript": "js"}.get(language))
    ]
    assert len(answers) >= 4
    found = extract_all(answers, language=language, extraction="last")
    failures = [extraction.explanation for extraction in found if extraction.status is not Status.OK]
    assert len(failures) <= 0.03 * len(answers), failures
