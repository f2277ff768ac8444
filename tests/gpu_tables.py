"""The rows of the pages' tables of GPU measurements, from the newest results."""

import json
from typing import Any

from tests.pages import ROOT

RESULTS = ROOT / "benchmarks" / "results" / "2026-11-28-h100" / "gpu-2.jsonl"
_SIZES = ("8B", "4B", "1.7B")


def cells() -> list[dict[str, Any]]:
    """The cells of the scoring stage, the largest model first."""
    lines = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if line["stage"] == "scoring" and "cell" in line]
    return sorted(found, key=lambda cell: _SIZES.index(cell["cell"].split()[0]))


def time_row(cell: dict[str, Any]) -> str:
    """A row of the table of times in docs/scoring.md."""
    times, ratio = cell["milliseconds"], cell["ratio"]
    parts = [cell["cell"], *(f"{times[way]:.3g}" for way in ("ours", "ours_uncompiled"))]
    parts += [f"{cell['programs_a_second']['ours']:.0f}", f"{cell['peak_share_of_ours']:.0%}"]
    parts += [f"{ratio[way]:.1f}x" for way in ("batches_of_8", "one_forward", "unshared")]
    return f"| {' | '.join(parts)} |\n"


def memory_row(cell: dict[str, Any]) -> str:
    """A row of the table of memory in docs/scoring.md."""
    memory = cell["memory_gb"]
    parts = [cell["cell"], f"{memory['ours']:.2f} GB"]
    parts += [f"{memory[way]:.1f} GB" for way in ("batches_of_8", "one_forward")]
    return f"| {' | '.join(parts)} |\n"


def cost_row(cell: dict[str, Any]) -> str:
    """A row of the table of costs in README.md."""
    parts = [cell["cell"].split()[0], f"{cell['weights_gb']:.1f} GB", f"{cell['memory_gb']['ours']:.2f} GB"]
    parts += [f"{cell['milliseconds']['ours']:.0f} ms", f"{cell['programs_a_second']['ours']:.0f}"]
    return f"| {' | '.join(parts)} |\n"
