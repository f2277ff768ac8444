"""Results of every evaluation, written as summaries, and a page to be read."""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from codescaler_plugin.evaluation.best_of_n import Candidates, evaluate_candidates
from codescaler_plugin.evaluation.calibration import evaluate_calibration
from codescaler_plugin.evaluation.pairwise import evaluate_pairs
from codescaler_plugin.evaluation.policy import summarise
from codescaler_plugin.evaluation.result import Result
from codescaler_plugin.evaluation.rm_bench import bench_numbers
from codescaler_plugin.evaluation.robustness import evaluate_robustness
from codescaler_plugin.evaluation.summary import Summary, write_summary
from codescaler_plugin.records import PreferencePair
from codescaler_plugin.testing import FakeScorer
from tests.samples import hashed

PAIRS = [
    PreferencePair(
        f"P{n}", f"def f(a):\n    b = a + {n}\n    return b\n", f"def f(a):\n    return a - {n}\n", "rollout", str(n)
    )
    for n in range(12)
]
GROUPS = [
    Candidates(str(n), f"P{n}", ("a = 1", "b = 22", "c = 333", ""), (n % 2 == 0, True, False, False)) for n in range(6)
]

VERDICTS = [
    {"source": "bench", "problem_id": str(n // 3), "passed": n % 4 == 0, "status": "ok", "fault": "timeout" * (n == 1)}
    for n in range(18)
]


def measured(shift: str = "") -> dict[str, Any]:
    """The result of each evaluation by its name; Any, because a test knows which is which."""
    scorer = FakeScorer(lambda problem, code: hashed(problem + shift, code))
    margins = [hashed(shift, str(n)) for n in range(40)]
    right = [float(hashed("right", str(n)) < 0.8) for n in range(40)]
    return {
        "pairs": evaluate_pairs(PAIRS, scorer, human_bugs=PAIRS[:3]),
        "rm-bench": bench_numbers([[1.0, 2, 3, 1, 1.5, 9], [5.0, 5, 5, 1, 1, 1]], ["code", "chat"], ["cpp", ""]),
        "candidates": evaluate_candidates(GROUPS, scorer),
        "calibration": evaluate_calibration(margins, right, range(40)),
        "robustness": evaluate_robustness(PAIRS, scorer),
        "generation": summarise(VERDICTS, n=3, ks=[1, 3], settings={"temperature": 0.6, "seed": None})["bench"],
    }


def kept(folder: Path, model: str, results: dict[str, Result], name: str = "data") -> Path:
    for evaluation, result in results.items():
        write_summary(folder, Summary(name, model, result, {"command": f"codescaler evaluate {evaluation}"}))
    return folder


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"
