"""The pages whose code blocks are run: README.md and those in docs/."""

from pathlib import Path

from codescaler_plugin.extraction.blocks import Block, find_blocks

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
OTHER_PAGES = [
    *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md")),
    *sorted((ROOT / "recipes").rglob("*.md")),
]


def name_of(page: Path) -> str:
    """A page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    return find_blocks(page.read_text(encoding="utf-8"))


def code_of(page: Path, language: str) -> list[str]:
    """The blocks of a page in one language."""
    return [block.text for block in blocks_of(page) if block.info == language]
