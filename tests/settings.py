"""The table of settings in docs/settings.md, made from `config.py`: `python -m tests.settings` writes it anew."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

from codescaler_plugin.config import PREFIX, CodeScalerConfig

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
BEGIN, END = "<!-- settings: python -m tests.settings -->\n", "<!-- end of settings -->\n"


def table() -> str:
    """A row per field, in the field's order; what it means is its line in the class's docstring."""
    section = inspect.cleandoc(CodeScalerConfig.__doc__ or "").split("Attributes:\n")[1]
    meanings = {
        name: " ".join(text.split()) for name, text in re.findall(r"^    (\w+): (.*(?:\n        .*)*)", section, re.M)
    }
    lines = ["| keyword and variable | default | |", "|---|---|---|"]
    for field in fields(CodeScalerConfig):
        default = "none" if field.default is None else f"`{field.default}`"
        meaning = meanings[field.name].replace("|", "\\|")
        lines.append(f"| `{field.name}`<br>`{PREFIX}{field.name.upper()}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def written() -> str:
    """The page with the table of today."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PAGE.write_text(written(), encoding="utf-8")
