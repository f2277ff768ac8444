import json
import shutil
from pathlib import Path

from typer.testing import CliRunner

from codescaler_plugin.cli import app


def test_model_without_a_pad_token_is_measured(tiny_rm_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "no-pad"
    shutil.copytree(tiny_rm_dir, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "pad_token_id": None}))
    arguments = ["bench", "--model", str(folder), "--group", "4", "--prompt", "40", "--completion", "16"]
    result = CliRunner().invoke(app, [*arguments, "--repetitions", "1"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout.splitlines()[-1])
    assert max(report["max_difference"].values()) < 1e-5


def test_command_prints_a_table_of_80_columns_and_a_line_of_json(tiny_rm_dir: Path) -> None:
    arguments = ["bench", "--model", str(tiny_rm_dir), "--group", "4", "--prompt", "40", "--completion", "16"]
    result = CliRunner().invoke(app, [*arguments, "--repetitions", "1", "--threads", "1"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    report = json.loads(lines[-1])
    assert report["samples"] == 4
    assert report["threads"] == 1
    assert all(len(line) <= 80 for line in lines[:-1])
    assert any("batches of 8" in line and "x as fast" in line for line in lines)
