"""Runs another project's suite in a process of its own, which says where it stands if it takes too long."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

#: Seconds that a process has for writing down its threads' stacks.
LAST_WORDS_SECONDS = 10


class Ended(NamedTuple):
    """A suite's exit status, and what it has printed."""

    status: int
    output: str


def run(command: Sequence[str], seconds: float, environment: Mapping[str, str], cwd: Path | None = None) -> Ended:
    """Run a suite. One that takes longer than ``seconds`` is ended by SIGABRT, and prints its threads' stacks."""
    # A file and no pipe: processes that a killed suite leaves behind would keep a pipe open.
    with tempfile.TemporaryFile() as printed:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONFAULTHANDLER": "1", **environment},
            cwd=cwd,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(LAST_WORDS_SECONDS)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        printed.seek(0)
        return Ended(process.returncode, printed.read().decode(errors="replace"))
