"""Everything of transformers is loaded by one function, which runs no code of a folder unasked."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from codescaler_plugin.errors import ConfigError
from codescaler_plugin.pretrained import pretrained
from tests.models import add_code

HERE = Path(__file__).parents[1]


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


def test_where_no_setting_trusts_code_none_is_named(tiny_rm_dir: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    folder = tmp_path / "model"
    shutil.copytree(tiny_rm_dir, folder)
    add_code(folder)
    with pytest.raises(ConfigError, match="which is not run here") as error:
        pretrained(AutoConfig, folder)
    assert "TRUST_REMOTE_CODE" not in str(error.value)
    assert not (folder / "MARK").exists()
