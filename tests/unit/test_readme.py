"""The README's promises are run, not read."""

import re
from pathlib import Path

import pytest
import yaml

from codescaler_plugin import Status
from codescaler_plugin.cli import app
from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.extraction.blocks import find_blocks

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = find_blocks(README)


def blocks(language):
    return [block.text for block in BLOCKS if block.info == language]


def test_set_up_is_exactly_two_commands():
    commands = [line for block in blocks("bash") for line in block.splitlines() if "pip install" in line]
    assert commands == ['pip install -e ".[trl]" && codescaler quickstart', 'pip install -e ".[test]" && pytest']


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_block_compiles(number):
    compile(blocks("python")[number], "README", "exec")


def test_python_blocks_without_a_trainer_run(capsys):
    extracted, judged = [block for block in blocks("python") if "Trainer" not in block]
    exec(extracted, {})
    assert capsys.readouterr().out.startswith("syntax_error The block at line 1 of the answer does not compile")
    exec(judged, {})
    status, reward = capsys.readouterr().out.split()
    assert status == "ok"
    assert float(reward) > 0


def test_yaml_block_names_settings_that_exist():
    (block,) = blocks("yaml")
    recipe = yaml.safe_load(block)
    assert recipe["reward_funcs"] == ["codescaler_plugin.codescaler_reward"]
    assert CodeScalerConfig.from_env(recipe["env"]).model == recipe["env"]["CODESCALER_MODEL"]


def test_every_status_stands_in_the_table_of_rewards():
    assert [status for status in Status if f"`{status}`" not in README] == []


def test_every_command_of_the_readme_exists():
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    names |= {group.name or group.typer_instance.info.name for group in app.registered_groups}
    used = set(re.findall(r"^(?:.*&& )?codescaler (\w+)", "\n".join(blocks("bash")), flags=re.MULTILINE))
    assert used
    assert used <= names


def test_every_linked_file_exists():
    root = Path(__file__).parents[2]
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (root / link).exists()] == []
