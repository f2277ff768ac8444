"""What `mkdocs build` makes beside the pages: the front page, files of the repository, and the API reference.

- The front page is README.md.
- Pages link to files of the repository as on GitHub, such as `../recipes/README.md`. Each linked file is copied below
  `repository/`, and the link follows.
- A page of the reference for each room of the package, from the docstrings of its public names.
"""

import re
from collections import defaultdict
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from codescaler_plugin import _PUBLIC, testing

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
ALSO = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")  # pages of the repository that the navigation shows


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add to the navigation what is made here."""
    reference = {"API reference": [{room: f"reference/{room}.md"} for room in _rooms()]}
    config.nav = [*(config.nav or ()), reference, {"Project": [_place(name) for name in ALSO]}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the front page, the files that pages link to, and the reference."""
    queue = ["README.md", *ALSO, *(f"docs/{file.src_uri}" for file in files)]
    while queue:
        path = queue.pop()
        if files.get_file_from_path(_place(path)) is None:
            files.append(File.generated(config, _place(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            linked = {_target(path, link) for link in LINK.findall((ROOT / path).read_text(encoding="utf-8"))}
            queue += [target for target in linked if target and files.get_file_from_path(_place(target)) is None]
    for room, modules in _rooms().items():
        files.append(File.generated(config, f"reference/{room}.md", content=_reference(room, modules)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links of the repository lead to the site's files."""
    place: str = page.file.src_uri
    path = "README.md" if place == "index.md" else place.removeprefix("repository/")
    path = path if place.startswith(("repository/", "index.md")) else f"docs/{place}"

    def follow(match: re.Match[str]) -> str:
        target = _target(path, match[1])
        return relpath(_place(target), dirname(place) or ".") if target else match[1]

    return LINK.sub(follow, markdown)


def _target(path: str, link: str) -> str | None:
    """The file of the repository that a link on a page leads to: of a folder its README; None if there is none."""
    target = normpath(f"{dirname(path)}/{link}".lstrip("/"))
    if (ROOT / target).is_dir():
        target = f"{target}/README.md"
    return target if not target.startswith("..") and (ROOT / target).is_file() else None


def _place(path: str) -> str:
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"


def _rooms() -> dict[str, dict[str, list[str]]]:
    """Room -> module -> its public names."""
    rooms: dict[str, dict[str, list[str]]] = defaultdict(dict)
    for module, names in sorted({**_PUBLIC, "testing": " ".join(testing.__all__)}.items()):
        rooms[module.partition(".")[0]][module] = names.split()
    return rooms


def _reference(room: str, modules: dict[str, list[str]]) -> str:
    imports = "from codescaler_plugin.testing import ..." if room == "testing" else "from codescaler_plugin import ..."
    lines = [f"# {room}", "", f"All names here: `{imports}`.", ""]
    for module, names in modules.items():
        lines += [f"::: codescaler_plugin.{module}.{name}\n" for name in names]
    return "\n".join(lines)
