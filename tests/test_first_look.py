"""The notebook runs, and shows what it would show today."""

import os

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("trl")

from tests import first_look


@pytest.mark.timeout(600)
def test_the_notebook_runs_and_shows_todays_outputs(monkeypatch):
    for name in [name for name in os.environ if name.startswith("COVERAGE_")]:
        monkeypatch.delenv(name)
    saved, notebook = first_look.read(), first_look.read()
    [training] = [cell for cell in notebook.cells if "max_steps=30," in cell.source]
    training.source = training.source.replace("max_steps=30,", "max_steps=2,")

    executed = first_look.run(notebook)

    cells = [pair for pair in zip(saved.cells, executed.cells, strict=True) if pair[0].cell_type == "code"]
    assert len(cells) > 5
    for before, after in cells:
        if first_look.VARIES in before.metadata.get("tags", []):
            assert list(map(kind, before.outputs)) == list(map(kind, after.outputs))
        else:
            assert first_look.outputs(before) == first_look.outputs(after), "run: python -m tests.first_look"


def test_the_outputs_are_small_and_clean():
    cells = [cell for cell in first_look.read().cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells)
    assert [output.text for cell in cells for output in cell.outputs if output.get("name") == "stderr"] == []
    assert first_look.NOTEBOOK.stat().st_size < 100_000


def kind(output):
    return output.output_type, sorted(output.get("data", {}))
