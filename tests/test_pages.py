"""The promises of README.md and docs/ are checked, not read. `integration/test_page_blocks.py` runs their blocks."""

import re
import subprocess
from datetime import date
from pathlib import Path

import pytest
import yaml

from codescaler_plugin import Status
from codescaler_plugin.cli import app
from tests import gpu_tables, settings
from tests.pages import OTHER_PAGES, PAGES, README, ROOT, blocks_of, code_of, name_of

RUN = {"bash", "python", "yaml", "json", "diff"}
"""The languages that a runner knows, see `integration/test_page_blocks.py`."""
NOT_RUN = {
    "sh": "a command that needs a cluster, a network, an hour or the reader's own words",
    "text": "no code: a drawing",
}
COMPLETIONS = (ROOT / "docs" / "completions.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_run_or_marked_as_not_run(page):
    blocks = blocks_of(page)
    assert [f"line {block.line}: {block.info!r}" for block in blocks if block.info not in RUN | NOT_RUN.keys()] == []
    assert [block.line for block in blocks if not block.closed] == []


def test_few_blocks_are_not_run():
    infos = [block.info for page in PAGES for block in blocks_of(page)]
    assert 5 * infos.count("sh") <= len([info for info in infos if info in RUN])


def test_readme_is_short_and_starts_with_three_commands():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150
    first = code_of(README, "bash")[0].splitlines()
    assert first == [
        "python3 -m venv .venv && source .venv/bin/activate",
        'pip install ".[trl]"',
        "codescaler quickstart",
    ]


def test_every_status_stands_in_the_table_of_rewards():
    assert [status for status in Status if f"`{status}`" not in COMPLETIONS] == []


def test_every_command_is_on_a_page_and_every_command_of_a_page_exists():
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    names |= {group.name or group.typer_instance.info.name for group in app.registered_groups}
    shell = "\n".join(block for page in PAGES for block in code_of(page, "bash"))
    assert set(re.findall(r"(?:^|\(|&& )codescaler ([\w-]+)", shell, flags=re.MULTILINE)) == names


def test_the_table_of_settings_is_todays():
    assert settings.written() == settings.PAGE.read_text(encoding="utf-8"), "run: python -m tests.settings"


def test_the_tables_of_gpu_measurements_are_of_the_newest_results():
    scoring = (ROOT / "docs" / "scoring.md").read_text(encoding="utf-8")
    cells = gpu_tables.cells()
    assert "".join(map(gpu_tables.time_row, cells)) in scoring
    assert "".join(map(gpu_tables.memory_row, cells)) in scoring
    costs = [cell for cell in reversed(cells) if cell["cell"].endswith("G=16 P=480 C=216")]
    assert "".join(map(gpu_tables.cost_row, costs)) in README.read_text(encoding="utf-8")
    assert len(costs) == 3


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=name_of)
def test_every_linked_file_and_heading_exists(page):
    links = re.findall(r"\]\((?!http)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not _exists(page, link)] == []


def _exists(page: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    file = page.parent / path if path else page
    if not heading or file.suffix != ".md":
        return file.exists()
    titles = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, *OTHER_PAGES], ids=name_of)
def test_every_shell_block_parses(page):
    for block in blocks_of(page):
        if block.info in ("bash", "sh"):
            parsed = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True, check=False)
            assert parsed.returncode == 0, parsed.stderr


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    assert [page.name for page in PAGES[1:] if page.name not in navigation] == []


def test_every_recipe_is_in_the_table_of_recipes():
    table = (ROOT / "recipes" / "README.md").read_text(encoding="utf-8")
    started = [*(ROOT / "recipes").rglob("*.yaml"), *(ROOT / "recipes").rglob("*.sh")]
    names = {path.relative_to(ROOT / "recipes").as_posix() for path in started if path.parent.name != "accelerate"}
    assert {name for name in names if f"({name})" not in table} == {"openrlhf/ray_cluster.sh", "openrlhf/reward.sh"}


def test_the_files_that_contributing_names_exist():
    table = re.findall(
        r"^\| (`.*?`(?:, `.*?`)*) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    paths = {path for cell in table for path in re.findall(r"`([^`]+)`", cell) if "/" in path and " " not in path}
    assert len(paths) > 15
    assert [path for path in paths if "HOST" not in path and "NAME" not in path and not (ROOT / path).exists()] == []


def test_citation_has_what_the_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in ("software", "dataset")
    paper = citation["preferred-citation"]
    assert paper.keys() >= {"type", "title", "authors"}
    assert all({"family-names", "given-names"} <= author.keys() for author in paper["authors"])
    assert paper["url"].endswith("2602.17684")
    assert paper["year"] <= date.today().year
