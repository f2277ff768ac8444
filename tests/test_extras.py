"""What needs an optional dependency says so before the work, with the command that installs it."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from codescaler_plugin import MissingExtraError, extras
from codescaler_plugin.cli import app
from codescaler_plugin.extras import require

COMMANDS = [
    ("evaluate pairs {pairs} --model /nowhere", "scipy", "report"),
    ("evaluate candidates {verdicts} --model /nowhere", "scipy", "report"),
    ("evaluate robustness {pairs} --model /nowhere", "scipy", "report"),
    ("evaluate calibration {pairs} --model /nowhere", "sklearn", "report"),
    ("evaluate generation {problems} --policy-model /nowhere", "scipy", "report"),
    ("calibrate {candidates} --model /nowhere --output out.json", "sklearn", "report"),
    ("calibrate {candidates} --model /nowhere --costs 1,1,1", "sklearn", "report"),
    ("mine {verdicts} --output out.jsonl --card card", "matplotlib", "report"),
    ("augment {pairs} --output out.jsonl --card card", "matplotlib", "report"),
    ("report {evaluations}", "matplotlib", "report"),
    ("report {verdicts}", "jinja2", "report"),
    ("quickstart", "trl", "trl"),
    ("serve --model /nowhere", "uvicorn", "serve"),
]


@pytest.mark.parametrize(("command", "module", "extra"), COMMANDS, ids=[command for command, _, _ in COMMANDS])
def test_a_command_names_what_it_lacks_before_the_model_is_asked_for(
    command: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: dict[str, list[Any]] = {
        "pairs": [{"problem": "p", "chosen": "x = 1", "rejected": "x = 2"}],
        "verdicts": [{"problem": "p", "code": "x = 1", "status": "ok", "passed": True}],
        "problems": [{"problem": "p", "tests": [{"input": "1", "output": "1"}]}],
        "candidates": [{"problem": "p", "completions": ["a", "b"], "passed": [True, False]}],
    }
    files = {}
    for name, given in rows.items():
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in given))
    files["evaluations"] = tmp_path / "evaluations"
    files["evaluations"].mkdir()
    (files["evaluations"] / "pairs.x.summary.json").write_text("{}")
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == module else find_spec(name))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command.format(**files).split())
    assert done.exit_code == 1, done.output
    assert f'needs {module}. Install with: pip install "codescaler-plugin[{extra}]"' in done.stderr
    assert "/nowhere" not in done.stderr


def test_a_score_file_without_lmdb_is_refused_before_the_weights_are_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from codescaler_plugin import load_scorer

    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    scorer = load_scorer(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(MissingExtraError, match=r"lmdb.*codescaler-plugin\[cache\]"):
        scorer.score([("p", "x = 1")])


def test_what_is_there_is_not_imported_and_all_that_is_missing_is_named() -> None:
    require("this", "report", "json", "this")
    with pytest.raises(MissingExtraError, match=r"^all needs not_here, nor_here\. Install"):
        require("all", "report", "json", "not_here", "nor_here")


def test_every_extra_that_is_named_exists() -> None:
    import re
    import tomllib

    root = Path(__file__).parents[1]
    extras_ = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    texts = [path.read_text() for path in (root / "codescaler_plugin").rglob("*.py")]
    named = {name for text in texts for name in re.findall(r'require\(\s*f?"[^"]*", "(\w+)"', text)}
    assert {"report", "trl", "serve", "cache"} <= named <= extras_.keys()
