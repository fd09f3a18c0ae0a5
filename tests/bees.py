"""Real bees for tests: processes of ``python -m workerbee.bee`` that can be frozen, drained and killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import psutil

from tests.waiting import eventually

if TYPE_CHECKING:
    from typing_extensions import Self

PROJECT = Path(__file__).parents[1]


class Bee:
    """One bee; a context manager that leaves no process. ``arguments`` are those of the command."""

    def __init__(
        self, dsn: str, *arguments: object, workers: int = 1, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = TemporaryFile()  # noqa: SIM115 (closed with the bee)
        command = [sys.executable, "-m", "workerbee.bee", "--dsn", dsn, "--workers", str(workers)]
        path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})},
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._log.close()

    @property
    def output(self) -> str:
        """What it and its jobs have printed so far."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode("utf-8", "replace")

    def says(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        """Wait until its output matches."""
        found = eventually(lambda: [*re.finditer(pattern, self.output)], timeout, f"{pattern!r} in the bee's output")
        return found[0]

    def runners(self) -> list[psutil.Process]:
        """Its runner processes."""
        with suppress(psutil.Error):
            return [p for p in psutil.Process(self.process.pid).children() if "workerbee.bee.runner" in p.cmdline()]
        return []

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop it as a hung machine would; its runners too."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in [self.process.pid, *(runner.pid for runner in self.runners())]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """SIGKILL; its runners die with it."""
        runners = self.runners()
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(runners, 5)

    def wait(self, timeout: float = 30) -> int:
        """Its exit status."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"this bee hasn't ended within {timeout:g} s: {self.output}") from None
