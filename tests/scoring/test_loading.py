"""Folders of models that are broken or bring code: one clear line, and none of their code runs."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.pretrained import pretrained
from codescaler_plugin.scoring.loading import load_classifier

HERE = Path(__file__).parents[2]


def _config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _remote(folder: Path) -> None:
    """A folder whose code leaves a mark when it is imported."""
    _config(
        folder, model_type="strange", auto_map={"AutoConfig": "code.C", "AutoModelForSequenceClassification": "code.M"}
    )
    (folder / "code.py").write_text(
        f"open({str(folder / 'MARK')!r}, 'w')\nfrom transformers import PretrainedConfig\n"
    )


BROKEN: dict[str, Callable[[Path], Any]] = {
    "weights cut off": lambda folder: (folder / "model.safetensors").write_bytes(b"\x10"),
    "weights of garbage": lambda folder: (folder / "model.safetensors").write_bytes(b"\xff" * 5000),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "config no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "config a list": lambda folder: (folder / "config.json").write_text("[]"),
    "config null": lambda folder: (folder / "config.json").write_text("null"),
    "config of an unknown kind": lambda folder: (folder / "config.json").write_text('{"model_type": "nope"}'),
    "config of wrong types": lambda folder: _config(folder, hidden_size="x"),
    "no heads": lambda folder: _config(folder, num_attention_heads=0),
    "tokenizer no JSON": lambda folder: (folder / "tokenizer.json").write_text("no"),
    "tokenizer empty": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "tokenizer's config a list": lambda folder: (folder / "tokenizer_config.json").write_text("[1]"),
    "template no Jinja": lambda folder: (folder / "chat_template.jinja").write_text("{% if %}"),
    "code of its own": _remote,
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_folder_is_one_clear_error(tiny_rm_dir: Path, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_rm_dir, folder)
    BROKEN[how](folder)
    with pytest.raises(ConfigError) as error:
        load_classifier(str(folder))
    assert str(folder) in str(error.value)
    assert not (folder / "MARK").exists()


def test_a_folders_code_does_not_run_where_the_data_say_yes(tiny_rm_dir: Path, tmp_path: Path) -> None:
    """Transformers ask on stdin whether it may, unless they are told."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_rm_dir, folder)
    _remote(folder)
    row = json.dumps({"problem": "P", "completion": "```python\nx = 1\n```"})
    done = subprocess.run(
        [sys.executable, "-m", "codescaler_plugin", "score", "-", "--model", str(folder)],
        input=f"{row}\n" * 70 + "y\n" * 100,
        capture_output=True,
        text=True,
        cwd=HERE,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert "brings code of its own" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (folder / "MARK").exists()


def test_trust_is_always_given_to_transformers() -> None:
    given: dict[str, Any] = {}

    class Kind:
        @staticmethod
        def from_pretrained(name: str, **settings: Any) -> str:
            given.update(settings)
            return name

    assert pretrained(Kind, "owner/name", dtype="auto") == "owner/name"
    assert given == {"trust_remote_code": False, "dtype": "auto"}


def test_nothing_else_loads_from_a_folder() -> None:
    """`from_pretrained` without `trust_remote_code` may ask on stdin: all loading goes by the one function."""
    for file in [*HERE.glob("codescaler_plugin/**/*.py"), *HERE.glob("recipes/**/*.py")]:
        text = file.read_text(encoding="utf-8")
        for call in re.findall(r"\w+\.from_pretrained\([^)]*", text):
            assert "trust_remote_code" in call or "**source" in call, (file, call)


def test_a_folder_that_is_there_is_not_looked_for_on_the_hub(tiny_rm_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_rm_dir, folder)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ConfigError, match="its files are broken") as error:
        load_classifier(str(folder))
    assert "HF_HUB_OFFLINE" not in str(error.value)


def test_an_empty_chat_template_is_none(tiny_rm_dir: Path, tmp_path: Path) -> None:
    """It would render every program as no tokens at all."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_rm_dir, folder)
    for file in folder.glob("chat_template*"):
        file.unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": ""}))
    with pytest.raises(ConfigError, match="no chat template"):
        load_classifier(str(folder))


def test_where_no_setting_trusts_code_none_is_named(tiny_rm_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    folder = tmp_path / "model"
    shutil.copytree(tiny_rm_dir, folder)
    _remote(folder)
    with pytest.raises(ConfigError, match="which is not run here") as error:
        pretrained(AutoConfig, folder)
    assert "TRUST_REMOTE_CODE" not in str(error.value)
    assert not (folder / "MARK").exists()
