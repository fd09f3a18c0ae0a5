"""The notebooks are run from top to bottom by a kernel; their own assertions check their answers."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

PROJECT = Path(__file__).parents[2]
QUICKSTART = PROJECT / "notebooks" / "quickstart.ipynb"
OTHERS = sorted(set((PROJECT / "notebooks").glob("*.ipynb")) - {QUICKSTART})


@pytest.fixture(scope="module")
def said(run_directory: Path) -> list[str]:
    """What each cell of code of the quickstart says."""
    return texts(executed(QUICKSTART, run_directory))


def executed(path: Path, directory: Path) -> Any:
    """The notebook after it was run from top to bottom on a new embedded server."""
    home = directory / path.stem
    home.mkdir(mode=0o711)
    notebook = nbformat.read(path, as_version=4)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kernel's machinery warns of its own affairs
        patch.setenv("WORKERBEE_HOME", str(home))
        patch.setenv("PYTHONPATH", str(PROJECT))
        nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(home)}}).execute()
    return notebook


def texts(notebook: Any) -> list[str]:
    """The outputs of the cells of code, in plain text, without the ids of jobs."""
    return [
        "".join(re.sub(r"\b\d{3,}(?=  \d  integer)", "…", text_of(output)) for output in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def text_of(output: Any) -> str:
    return str(output.get("text") or output.get("data", {}).get("text/plain") or output)


def test_quickstart_says_what_is_stored_in_it(said: list[str]) -> None:
    """It runs without an error, and whoever only reads it sees what it says."""
    assert said == texts(nbformat.read(QUICKSTART, as_version=4))


def test_quickstart_resumes(said: list[str]) -> None:
    """Running the same calls again computes what is missing, and no more."""
    assert any("500 were stored, 500 were computed now" in text for text in said)


@pytest.mark.soak
@pytest.mark.parametrize("path", OTHERS, ids=lambda path: path.stem)
def test_other_notebooks_run(path: Path, run_directory: Path) -> None:
    """Their own assertions hold, and they say as much as is stored in them."""
    cells = [cell for cell in executed(path, run_directory).cells if cell.cell_type == "code"]
    stored = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [bool(cell.outputs) for cell in cells] == [bool(cell.outputs) for cell in stored]


@pytest.mark.parametrize("path", [QUICKSTART, *OTHERS], ids=lambda path: path.stem)
def test_what_is_stored_is_of_one_run(path: Path) -> None:
    """Whoever reads a notebook sees what its cells say: run in order, without an error, nothing of a machine in it."""
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert not [output for output in outputs if output.output_type == "error"]
    assert not re.search(r"/(home|tmp|root|work)/", str([text_of(output) for output in outputs]))
