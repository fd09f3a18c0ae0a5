"""The small process that kills a bee's runners, with all that their jobs have started, when the bee is killed.

A runner can't do that itself: the kernel kills it together with the bee, it may be frozen, or in a job that holds
the GIL. The module `guard` is what that process runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

from workerbee import guard


class Guardian:
    """Kills process groups when this process ends, however it does, and removes directories that nobody holds then."""

    def __init__(self, *directories: str) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        with suppress(OSError):  # where no process can be started, there is no guardian
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *directories],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                bufsize=0,
            )

    def watch(self, group: int) -> None:
        self._groups.add(group)
        self._tell()

    def forget(self, group: int) -> None:
        """Stop guarding a group. Call this before its leader is waited for: afterwards another may get the number."""
        self._groups.discard(group)
        self._tell()

    def _tell(self) -> None:
        if self._process is None or self._process.stdin is None:
            return
        with suppress(OSError):  # the guardian was killed; the kernel still kills the runners themselves
            os.write(self._process.stdin.fileno(), b"%s\n" % " ".join(map(str, sorted(self._groups))).encode())

    def dismiss(self) -> None:
        """End the guardian process, which leaves the groups alone."""
        if self._process is not None and self._process.stdin is not None:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
