"""The results of `benchmarks/gpu.sh` as a Markdown table.

    python benchmarks/gpu/table.py FOLDER

Reads FOLDER/gpu.jsonl, whatever stages it has. What several values of a line of results have by the same names, ways
of doing it say, gets a row for each name; the rest of the line is one row. Long texts are left out, long rows cut.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("cell", "part", "size", "model")  # of a line, whichever it has
LONGEST_TEXT, LONGEST_ROW = 40, 300  # characters


def short(value: Any) -> str:
    """A value in few characters."""
    if isinstance(value, list):
        return " ".join(map(short, value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "/").replace("\n", " ")


def said(name: str, value: Any) -> Iterator[str]:
    """A value with its name; of a dict, what is in it, each with all names above it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from said(f"{name}.{key}", inner)
    elif value not in (None, []) and len(text := short(value)) <= LONGEST_TEXT:
        yield f"{name} {text}"


def rows(line: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(cell, way, numbers) of a line of results."""
    names = [name for name in NAMES if isinstance(line.get(name), str)]
    values = {key: value for key, value in line.items() if key not in {"stage", "conditions", *names}}
    uses = Counter(key for value in values.values() if isinstance(value, dict) for key in value)
    by_way: dict[str, list[str]] = {"": []}
    for key, value in values.items():
        if isinstance(value, dict) and (key == "ways" or any(uses[way] > 1 for way in value)):
            for way, number in value.items():
                inner = number if key == "ways" else {key: number}
                by_way.setdefault(way, []).extend(one for name in inner for one in said(name, inner[name]))
        else:
            by_way[""].extend(said(key, value))
    cell = ", ".join(line[name] for name in names)
    for way, numbers in by_way.items():
        text = ", ".join(numbers)
        if text:
            yield cell, way, text if len(text) <= LONGEST_ROW else text[:LONGEST_ROW].rpartition(", ")[0] + ", ..."


def main() -> None:
    """Print what it was measured on, and the table."""
    text = Path(sys.argv[1], "gpu.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    for on in sorted({json.dumps(conditions_of(line)) for line in lines if "conditions" in line}):
        print(", ".join(f"{name} {value}" for name, value in json.loads(on).items()))
    print("\n| stage | cell | way | |\n| --- | --- | --- | --- |")
    for line in lines:
        for row in rows(line):
            print(f"| {line['stage']} | " + " | ".join(row) + " |")


def conditions_of(line: dict[str, Any]) -> dict[str, Any]:
    """What is the same for all lines of a machine."""
    return {key: line["conditions"].get(key) for key in ("device", "torch", "transformers", "python")}


if __name__ == "__main__":
    main()
