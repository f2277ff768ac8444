"""The README's promises are run, not read."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from codescaler_plugin import Status
from codescaler_plugin.cli import app
from codescaler_plugin.config import CodeScalerConfig
from codescaler_plugin.extraction.blocks import find_blocks
from tests import settings

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
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
    assert capsys.readouterr().out.startswith("syntax_error The block at line 1 of the completion does not compile")
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


def test_the_table_of_settings_is_todays():
    assert settings.written() == README, "run: python -m tests.settings"


ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "recipes").rglob("*.md")), ROOT / "tests" / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_linked_file_exists(page):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_shell_block_parses(page):
    for block in find_blocks(page.read_text(encoding="utf-8")):
        if block.info == "bash":
            parsed = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
            assert parsed.returncode == 0, parsed.stderr


def test_every_recipe_is_in_the_table_of_recipes():
    table = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    started = [*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "recipes").rglob("*.sh")]
    names = {path.relative_to(ROOT / "recipes").as_posix() for path in started if path.parent.name != "accelerate"}
    assert {name for name in names if f"({name})" not in table} == {"openrlhf/ray_cluster.sh", "openrlhf/reward.sh"}
