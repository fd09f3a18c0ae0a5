"""Starting a bee as a child of this process: it drains when told to, and stops when this process dies."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


class LocalBee:
    """A supervisor of our own.

    What it is to do, the database's password included, goes over a socket, never through its argv or
    environment. The socket's end is our end: the bee then gives back what it holds and exits.
    """

    def __init__(self, facts: dict[str, Any], *, own: tuple[socket.socket, int] | None = None) -> None:
        ours, theirs = socket.socketpair()
        inherited = [theirs.fileno()]
        if own is not None:
            inherited += [own[0].fileno(), own[1]]
            facts = facts | {"own": [own[0].fileno(), own[1]]}
        environment = dict(os.environ)
        # The directories that this process imports from, so that what it can import its bee can too.
        environment["PYTHONPATH"] = os.pathsep.join(p or str(Path.cwd()) for p in sys.path)
        facts = facts | {"environment": environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workerbee.bee", "--inherit", str(theirs.fileno())],
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
        theirs.close()
        self._socket = ours
        self._stream = ours.makefile("rw", encoding="utf-8")
        self._say(json.dumps(facts))

    def _say(self, line: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(line + "\n")
            self._stream.flush()

    def events(self, handle: Callable[[dict[str, Any]], None]) -> None:
        """Call ``handle`` with each event that the bee reports, until its end."""
        with suppress(OSError, ValueError), self._stream:
            for line in self._stream:
                handle(json.loads(line))

    def drain(self) -> None:
        """Claim nothing more, finish what runs, then exit."""
        self._say("drain")

    def stop(self) -> None:
        """Give everything back and exit now."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def disown(self) -> None:
        """In a forked child: the bee is to hear its client's end, though the child lives on."""
        with suppress(OSError):
            os.close(self._socket.detach())

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status; it is killed if it takes longer than ``timeout`` seconds."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._socket.close()  # not the stream: its last events may still be unread
        return status
