"""The notebook of the documentation, run as a reader would run it."""

import re
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorial.ipynb"


def printed(cell):
    return "".join(output.get("text", "") for output in cell.outputs if output.output_type == "stream")


def shown(cell, kind):
    return [output.data[kind] for output in cell.outputs if kind in output.get("data", {})]


def test_the_notebook_runs_shows_its_figures_and_is_right():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(
        output.output_type == "stream" and output.name == "stderr" for cell in cells for output in cell.outputs
    )
    assert sum(bool(shown(cell, "image/png")) for cell in cells) == 3
    inside, correlation = re.search(r"(\d+)% of the observed .* by (0\.\d+)", "".join(map(printed, cells))).groups()
    assert 50 <= int(inside) <= 100
    assert float(correlation) > 0.5
    assert shown(cells[-1], "text/plain") == ["np.True_"]
