"""The servers of a run, and the one way in which something is measured on them: in a process that may be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import psutil

from tests.benchmarks.timing import Figures, Place
from tests.servers import Database, Server, server

ROOT = Path(__file__).parents[2]
#: In the environment of every process of a measurement, so that none outlives it.
MARKER = "WORKERBEE_BENCHMARK"
DISK, MEMORY = "disk", "tmpfs"


class Contender(NamedTuple):
    """A function of a module that gives figures; a contender of a row's."""

    module: str
    function: str
    options: Mapping[str, Any] = {}


class Measured(NamedTuple):
    """Figures, and how whoever gave them was set up (nothing said: by default)."""

    figures: Figures
    settings: str


class MeasurementError(Exception):
    """A measurement gave no figures; the message says why."""


class Stage:
    """Where a run's measurements are made."""

    def __init__(self, stack: ExitStack, limit: float) -> None:
        """``limit`` is how long (s) one measurement may take."""
        self._stack = stack
        self._limit = limit
        self._home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="workerbee-bench-")))
        self._home.chmod(0o711)  # root's PostgreSQL runs as somebody else
        self._servers: dict[str, Server] = {}

    def server(self, where: str) -> Server:
        """The server on disk or in memory: fsync on, PostgreSQL's default durability and buffers."""
        if where not in self._servers:
            with _temporary_files_in("/dev/shm" if where == MEMORY else tempfile.gettempdir()):
                running = server(fsync=True, strict=False, shared_buffers="128MB", max_connections=300)
                self._servers[where] = self._stack.enter_context(running)
        return self._servers[where]

    @contextmanager
    def database(self, where: str, template: Database | None = None) -> Iterator[Database]:
        """A new database, gone after the block."""
        database = self.server(where).new_database(template)
        try:
            yield database
        finally:
            database.drop()

    def measure(self, contender: Contender, database: Database, n: int) -> Measured:
        """What one run of ``contender`` gives. Raises MeasurementError."""
        with tempfile.TemporaryDirectory(dir=self._home) as directory:
            Path(directory).chmod(0o711)
            place = Place(database.socket_dsn, database.dsn, directory, n)
            return self._measure(contender, place, Path(directory))

    def _measure(self, contender: Contender, place: Place, directory: Path) -> Measured:
        task = contender._asdict() | {"place": asdict(place), "answer": str(directory / "answer")}
        mark = uuid4().hex
        log = directory / "log"
        with log.open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.benchmarks.measure"],
                cwd=ROOT,
                env=self._environment(directory, mark),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            child.communicate(json.dumps(task).encode(), timeout=self._limit)
            answer = json.loads((directory / "answer").read_text())
        except subprocess.TimeoutExpired:
            raise MeasurementError(f"nothing within {self._limit:g} s") from None
        except FileNotFoundError:
            said = log.read_text(errors="replace")[-2000:]
            raise MeasurementError(f"exit status {child.returncode}: {said}") from None
        finally:
            _end_marked(mark)
            child.wait()
        if "skipped" in answer:
            raise MeasurementError(answer["skipped"])
        return Measured(answer["figures"], answer["settings"])

    def _environment(self, directory: Path, mark: str) -> dict[str, str]:
        """A home of its own for each measurement, and one key for all, so that they can share a jobset."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "WORKERBEE_", "XDG_"))}
        return kept | {
            "HOME": str(directory),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "WORKERBEE_HOME": str(directory / "workerbee"),
            "WORKERBEE_KEY_FILE": str(self._home / "key"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            MARKER: mark,
        }


@contextmanager
def stage(limit: float) -> Iterator[Stage]:
    """A `Stage` of which nothing is left after the block."""
    with ExitStack() as stack:
        yield Stage(stack, limit)


@contextmanager
def _temporary_files_in(directory: str) -> Iterator[None]:
    before, tempfile.tempdir = tempfile.tempdir, directory
    try:
        yield
    finally:
        tempfile.tempdir = before


def _end_marked(mark: str) -> None:
    """Kill what a measurement has left behind, whosever children they are by now."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if process.environ().get(MARKER) == mark:
                process.send_signal(signal.SIGKILL)
