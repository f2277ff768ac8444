"""Runs `docs/first_look.ipynb`: `python -m tests.first_look` saves it with today's outputs."""

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "first_look.ipynb"
VARIES = "varies"  # tag of cells that sample or train: their outputs differ between processors


def read() -> Any:
    """The notebook as it is in the repository."""
    return nbformat.read(NOTEBOOK, as_version=4)


def run(notebook: Any) -> Any:
    """Run all cells in an empty folder. Times and versions are not recorded, so that a run changes outputs only."""
    with TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": folder}})
        client.execute()
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def outputs(cell: Any) -> list[str]:
    """The text of a cell's outputs; numbers have two decimals."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return [re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.2f}", text) for text in texts]


if __name__ == "__main__":
    nbformat.write(run(read()), NOTEBOOK)
