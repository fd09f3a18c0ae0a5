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


@pytest.fixture(scope="module")
def said(run_directory: Path) -> list[str]:
    """What each cell of code says when the notebook is run on a new embedded server."""
    home = run_directory / "quickstart"
    home.mkdir(mode=0o711)
    notebook = nbformat.read(QUICKSTART, as_version=4)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kernel's machinery warns of its own affairs
        patch.setenv("WORKERBEE_HOME", str(home))
        patch.setenv("PYTHONPATH", str(PROJECT))
        nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(home)}}).execute()
    return texts(notebook)


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
