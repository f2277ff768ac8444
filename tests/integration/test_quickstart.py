"""The first minutes, with the embedded models and TRL's real trainer, cut down in problems and steps."""

import json
import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

from codescaler_plugin import CodeScalerReward, quickstart
from codescaler_plugin.cli import app
from codescaler_plugin.errors import ConfigError, MissingExtraError
from codescaler_plugin.integrations.trl import small_grpo
from codescaler_plugin.quickstart import run_quickstart

WRITTEN = ["curve.png", "history.jsonl", "policy", "report.json", "samples_after.jsonl", "samples_before.jsonl"]
KEYS = {
    "pass_at_1_before",
    "pass_at_1_after",
    "best_of_8",
    "invalid_before",
    "invalid_after",
    "mean_reward_before",
    "mean_reward_after",
    "seconds",
    "output",
}


@pytest.fixture(autouse=True)
def few_problems(monkeypatch):
    monkeypatch.setattr(quickstart, "MEASURED_PROBLEMS", 8)
    monkeypatch.setattr(small_grpo, "BATCH", 16)


@pytest.fixture
def two_threads():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield torch
    torch.set_num_threads(before)


def test_two_steps_end_with_a_json_line_and_leave_everything_they_name(tmp_path, monkeypatch, two_threads):
    threads, stock = [], CodeScalerReward.__call__

    def watched(self, *arguments, **columns):
        threads.append(two_threads.get_num_threads())
        return stock(self, *arguments, **columns)

    monkeypatch.setattr(CodeScalerReward, "__call__", watched)
    result = CliRunner().invoke(app, ["quickstart", "--steps", "2", "--json", "--output", str(tmp_path)])

    assert result.exit_code == 0, result.output
    assert (threads, two_threads.get_num_threads()) == ([1, 1], 2)  # the policy trains with one thread
    report = json.loads(result.stdout.splitlines()[-1])
    assert report.keys() >= KEYS
    assert report["steps"] == 2
    assert 0 < report["pass_at_1_before"] < 1
    assert report["best_of_8"] <= report["oracle_8"]
    assert {path.name for path in tmp_path.iterdir()} >= set(WRITTEN)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in history] == [1, 2]
    assert len((tmp_path / "samples_after.jsonl").read_text().splitlines()) == 8 * 8
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert len(result.stdout.splitlines()) == 1
    for line in result.stderr.splitlines():
        assert len(line) <= 80


def test_the_help_names_the_steps():
    assert f"GRPO steps; else {quickstart.STEPS}." in " ".join(
        CliRunner().invoke(app, ["quickstart", "-h"]).stdout.split()
    )


def test_ctrl_c_in_training_leaves_the_history_and_says_so(tmp_path, monkeypatch):
    def interrupt(*_, on_step, **__):
        on_step({"step": 1, "reward": 0.5})
        raise KeyboardInterrupt

    monkeypatch.setattr(small_grpo, "train_grpo", interrupt)
    result = CliRunner().invoke(app, ["quickstart", "--steps", "2", "--output", str(tmp_path)])

    assert result.exit_code == 130
    assert "Stopped" in result.stderr
    assert "history.jsonl" in result.stderr
    assert json.loads((tmp_path / "history.jsonl").read_text())["step"] == 1


def test_output_that_is_a_file_is_refused_before_any_work(tmp_path):
    target = tmp_path / "file"
    target.write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        run_quickstart(steps=1, output=target, console=Console())


def test_without_trl_the_error_holds_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setattr("codescaler_plugin.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "codescaler-plugin\[trl\]"'):
        run_quickstart(steps=1, output=tmp_path, console=Console())


def test_the_results_are_on_stdout_and_end_with_a_right_and_a_wrong_program_and_what_to_do_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["quickstart", "--steps", "1"], env={"COLUMNS": "80"})

    assert result.exit_code == 0, result.output
    out = result.stdout
    assert "pass@1" not in result.stderr
    report = json.loads((tmp_path / "codescaler-quickstart" / "report.json").read_text())
    for name in ("pass_at_1_before", "pass_at_1_after", "best_of_8", "invalid_before", "mean_reward_after"):
        assert f"{report[name]:.3f}" in out
    right, wrong = re.findall(r"(right|wrong): [^;]*; score (\S+), reward (\S+) ", out)
    assert (right[0], wrong[0]) == ("right", "wrong")
    assert float(right[2]) > 0
    assert float(wrong[2]) > 0  # both are valid
    assert ("errs" in out) == (float(wrong[2]) >= float(right[2]))
    assert "reward_funcs=[CodeScalerReward()]" in out
    [command] = re.findall(r"codescaler (score .*samples_after.jsonl --model builtin)", out)
    assert all(len(line) <= 80 for line in out.splitlines())
    judged = CliRunner().invoke(app, command.split())
    assert judged.exit_code == 0, judged.output
