"""From nothing to the first result, with the embedded server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.timing import Figures, Place
from tests.waiting import eventually

_IMPORT = """
import time
began = time.perf_counter()
{}
print(time.perf_counter() - began)
"""
_START = """
import time
began = time.perf_counter()
from workerbee import WorkerbeeExecutor
from tests.benchmarks.jobs import identity
with WorkerbeeExecutor(2) as executor:
    executor.submit(identity, 1).result()
    print(time.perf_counter() - began)
"""


def start(place: Place) -> Figures:
    """Seconds, each in a new interpreter: the imports, and from before them to the first result of a stopped server.

    The package loads what is in it when it is first named, hence two figures.
    """
    home = Path(os.environ["WORKERBEE_HOME"])
    _seconds(_START)  # makes the server's data directory
    eventually(lambda: not list(home.rglob("postmaster.pid")), what="the end of the embedded server")
    imports = {"import_s": "import workerbee", "executor_import_s": "from workerbee import WorkerbeeExecutor"}
    figures = {name: min(_seconds(_IMPORT.format(what)) for _ in range(3)) for name, what in imports.items()}
    return figures | {"start_s": _seconds(_START)}


def _seconds(script: str) -> float:
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)
