import json
import subprocess
import sys
from importlib.metadata import version

import pytest

import codescaler_plugin

HEAVY = {"torch", "transformers", "trl", "datasets", "numpy", "tree_sitter"}


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport json, sys\nsys.stdout.write(json.dumps(list(sys.modules)))"],
        capture_output=True,
        check=True,
    )
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize(
    "code",
    [
        "import codescaler_plugin",
        "from codescaler_plugin import Judgement, ScorerError, Status",
        "import codescaler_plugin.cli",
    ],
    ids=["package", "plain-names", "command"],
)
def test_import_is_cheap(code: str) -> None:
    loaded = loaded_by(code)
    assert "codescaler_plugin" in loaded
    assert not loaded & HEAVY


def test_reward_object_loads_no_model_library_before_its_first_call() -> None:
    names = "CodeScalerConfig, CodeScalerReward, codescaler_reward"
    loaded = loaded_by(f"from codescaler_plugin import {names}\nCodeScalerReward()")
    assert not loaded & {"torch", "transformers", "trl", "datasets"}


@pytest.mark.parametrize("name", codescaler_plugin.__all__)
def test_public_name_is_importable_and_listed(name: str) -> None:
    value = getattr(codescaler_plugin, name)
    assert getattr(value, "__name__", None) == name
    assert name in dir(codescaler_plugin)


@pytest.mark.parametrize("name", codescaler_plugin.__all__)
def test_public_name_has_an_example(name: str) -> None:
    assert ">>> " in (getattr(codescaler_plugin, name).__doc__ or "")


def test_public_names_are_sorted_and_unique() -> None:
    assert codescaler_plugin.__all__ == sorted(set(codescaler_plugin.__all__))


def test_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="CodeScalar"):
        codescaler_plugin.CodeScalar  # noqa: B018


def test_version_is_the_installed_one() -> None:
    assert codescaler_plugin.__version__ == version("codescaler-plugin")


@pytest.mark.parametrize(
    "name", ["ConfigError", "DataError", "GenerationError", "MissingExtraError", "SandboxError", "ScorerError"]
)
def test_every_error_is_a_codescaler_error(name: str) -> None:
    assert issubclass(getattr(codescaler_plugin, name), codescaler_plugin.CodeScalerError)


def test_message_of_a_missing_extra_is_also_a_config_error() -> None:
    assert issubclass(codescaler_plugin.MissingExtraError, codescaler_plugin.ConfigError)


@pytest.mark.parametrize("command", [["-h"], ["--help"], ["score", "-h"], ["evaluate", "pairs", "-h"]])
def test_the_package_is_a_command_and_help_is_short(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "codescaler_plugin", *command], capture_output=True, text=True)
    assert done.returncode == 0
    assert "Usage: codescaler" in done.stdout
