"""`codescaler evaluate` and `codescaler report` as typed, with a real model of no skill."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from codescaler_plugin import load_scorer, testing
from codescaler_plugin.cli import app
from codescaler_plugin.selection.calibration import read_calibration

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")

PAIRS = [
    {
        "problem": f"Add {number // 2}.",
        "chosen": f"def f(a):\n    total = a + {number}\n    return total\n",
        "rejected": f"def f(a):\n    return a - {number}\n",
        "problem_id": str(number // 2),
        "split": "held_out" if number % 4 < 2 else "train",
    }
    for number in range(16)
]
VERDICTS = [
    {
        "problem": f"Q{number // 4}",
        "problem_id": str(number // 4),
        "code": f"x = {number}\n",
        "passed": number % 3 == 0,
    }
    for number in range(24)
]
BENCH = [
    {"id": n, "prompt": f"P{n}", "chosen": [f"a{n}", "b", "c"], "rejected": ["d", f"e{n}", "f"], "language": "go"}
    for n in range(3)
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    tables: dict[str, list[dict[str, Any]]] = {"pairs": PAIRS, "verdicts": VERDICTS, "bench": BENCH}
    for name, rows in tables.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def summary(folder: Path, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / f"{name}.summary.json").read_text())
    return read


def test_all_five_and_the_report(data: Path, tiny_rm_dir: Path) -> None:
    out, model = data / "out", ("--model", str(tiny_rm_dir), "--output", str(data / "out"))
    done = run("evaluate", "pairs", data / "pairs.jsonl", "--split", "held_out", *model)
    assert done.exit_code == 0, done.output
    held_out = [row for row in PAIRS if row["split"] == "held_out"]
    scorer = load_scorer(str(tiny_rm_dir))
    chosen = scorer.score([(row["problem"], row["chosen"]) for row in held_out])
    rejected = scorer.score([(row["problem"], row["rejected"]) for row in held_out])
    wins = [one > two for one, two in zip(chosen, rejected, strict=True)]
    kept = summary(out, "pairs.pairs")
    assert kept["result"]["accuracy"]["value"] == pytest.approx(sum(wins) / len(wins))
    assert f"{sum(wins) / len(wins):.3f}" in done.stdout
    assert "above the best of 3 controls" in " ".join(done.stdout.split())
    assert ("most wrong, and why that may be" in done.stdout) != all(wins)
    assert kept["model"] == str(tiny_rm_dir)
    assert len(kept["data_sha256"]) == 64

    done = run("evaluate", "calibration", data / "pairs.jsonl", "--split", "held_out", *model)
    assert done.exit_code == 0, done.output
    assert "threshold" in done.stderr
    scored = read_calibration(out / "calibration.pairs.isotonic.json")
    assert (scored.examples, scored.model) == (len(held_out), str(tiny_rm_dir))
    assert summary(out, "calibration.pairs")["result"]["paired"] == pytest.approx(sum(wins) / len(wins))
    assert not (out / "calibration.pairs.jsonl").exists()  # the scores of `evaluate pairs` were taken

    for arguments in (
        ("evaluate", "candidates", data / "verdicts.jsonl", *model),
        ("evaluate", "calibration", data / "verdicts.jsonl", *model),
        ("evaluate", "robustness", data / "pairs.jsonl", "--max-pairs", "10", *model),
        ("evaluate", "rm-bench", data / "bench.jsonl", *model),
    ):
        done = run(*arguments)
        assert done.exit_code == 0, done.output
        assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert summary(out, "candidates.verdicts")["result"]["problems"] == 6
    assert summary(out, "robustness.pairs")["result"]["pairs"] == 10
    assert summary(out, "rm-bench.bench")["result"]["rows"] == 3
    assert (out / "rm-bench.bench.jsonl").read_text().count("\n") == 3

    done = run("report", out, "--output", data / "page.html", "--title", "Ours")
    assert done.exit_code == 0, done.output
    assert "<h1>Ours</h1>" in (data / "page.html").read_text()
    assert "## RM-Bench: bench" in (data / "page.md").read_text()


def test_published_scores_need_no_model(data: Path) -> None:
    rows = [{**row, "score_chosen": [3, 2, 1], "score_rejected": [0, 2, 9]} for row in BENCH]
    (data / "published.json").write_text(json.dumps(rows))
    done = run("evaluate", "rm-bench", data / "published.json", "--published", "Theirs-8B", "--output", data / "out")
    assert done.exit_code == 0, done.output
    assert "Theirs-8B" in done.stdout
    assert summary(data / "out", "rm-bench.published")["result"]["matrix"] == [[1, 1, 0], [1, 0, 0], [1, 0, 0]]
    command = ("evaluate", "rm-bench", data / "published.json", "--published", "Ours-8B", "--output", data / "out")
    done = run(*command)
    assert done.exit_code == 1
    assert "Theirs-8B" in done.stderr
    assert "--name" in done.stderr
    assert summary(data / "out", "rm-bench.published")["model"] == "Theirs-8B"
    assert run(*command, "--name", "ours").exit_code == 0
    done = run(*command, "--name", "cut", "--completions", "extracted")
    assert done.exit_code == 1
    assert "--completions extracted with --published: nothing is scored" in done.stderr


def test_other_data_under_one_name_is_an_error_that_tells(data: Path, tiny_rm_dir: Path) -> None:
    model = ("--model", str(tiny_rm_dir), "--output", str(data / "out"))
    done = run("evaluate", "pairs", data / "pairs.jsonl", *model)
    assert done.exit_code == 0
    assert "measured together (8 of held_out, 8 of train); --split" in " ".join(done.stderr.split())
    done = run("evaluate", "pairs", data / "pairs.jsonl", "--split", "held_out", *model)
    assert done.exit_code == 1
    assert "together" not in done.stderr
    assert "--name" in done.stderr
    assert run("evaluate", "pairs", data / "pairs.jsonl", "--split", "held_out", "--name", "h", *model).exit_code == 0


def test_scores_of_a_model_that_was_trained_anew_are_not_taken(data: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = testing.save_tiny_reward_model(tmp_path / "model")
    command = ("evaluate", "pairs", data / "pairs.jsonl", "--model", folder, "--output", data / "out")
    assert run(*command).exit_code == 0
    assert run(*command).exit_code == 0
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"] *= -1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    done = run(*command)
    assert done.exit_code == 1
    assert "is of another model" in done.stderr


def test_errors_name_the_offender(data: Path, tmp_path: Path) -> None:
    for arguments, said in (
        (("evaluate", "pairs", data / "absent.jsonl", "--model", "builtin"), "absent.jsonl"),
        (("evaluate", "pairs", data / "pairs.jsonl", "--model", "builtin", "--split", "dev"), "dev"),
        (("evaluate", "candidates", data / "pairs.jsonl", "--model", "builtin"), "passed"),
        (("report", tmp_path), "codescaler score"),
    ):
        done = run(*arguments)
        assert done.exit_code == 1, done.output
        assert said in done.stderr
