"""A traceback shows the lines of code that no file has, wherever the job failed and whoever reads it."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from textwrap import dedent

import pytest

from tests.servers import Database
from workerbee import WorkerbeeExecutor

PROJECT = Path(__file__).parents[2]

HELPER = """
    class Part:
        def of(self, n):
            return n / 0  # in a method
"""
FUNCTION = """
    # A function, and what it calls from other code.
    def half(n):
        return [
            (lambda: Part().of(n))()
        ]
"""
SHOWN = ["(lambda: Part().of(n))()", "return n / 0  # in a method"]
CALL = """
    from workerbee import WorkerbeeExecutor
    executor = WorkerbeeExecutor(1, dsn={dsn!r}, jobset_id="halves")
    print(executor.submit(half, 1).exception().__cause__)
    executor.shutdown()
"""


def test_cells_of_a_notebook(database: Database) -> None:
    """They are called as the notebook calls them there; elsewhere the lines say which they are."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    cells = [dedent(text) for text in (HELPER, FUNCTION, CALL.format(dsn=database.dsn))]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the kernel's machinery warns of its own affairs
        patch.setenv("PYTHONPATH", str(PROJECT))
        nbclient.NotebookClient(notebook, timeout=60).execute()
    said = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    assert "  Cell In[2], line 4, in half\n" in said
    assert "  Cell In[1], line 3, in of\n" in said
    assert all(line in said for line in SHOWN)
    assert all(line in read_elsewhere(database) for line in SHOWN)


def test_a_program_from_the_command_line(database: Database) -> None:
    """``python -c``, which Python itself doesn't show before 3.13."""
    code = "".join(map(dedent, (HELPER, FUNCTION, CALL.format(dsn=database.dsn))))
    said = subprocess.check_output([sys.executable, "-Bc", code, "-c", "more"], text=True, cwd=PROJECT)
    assert all(line in said for line in SHOWN), said
    assert all(line in read_elsewhere(database) for line in SHOWN)


def read_elsewhere(database: Database) -> str:
    with WorkerbeeExecutor(0, dsn=database.dsn, jobset_id="halves") as executor:
        (row,) = executor.results(on_error="return")
        return str(row["error"].__cause__)
