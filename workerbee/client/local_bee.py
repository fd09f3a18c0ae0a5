"""Starting a bee as a child of this process: it drains when told to, and stops when this process dies."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from workerbee.orders import BeeEvent, BeWorkersOf, Drain, Ended, Order, Orders, Start, from_line, to_line
from workerbee.program import Program, command, interpreter_flags, search_flags


class LocalBee:
    """A supervisor of our own; `child` is its side.

    What it is to do, the database's password included, goes over a socket, never through its argv or
    environment. The socket's end is our end: the bee then gives back what it holds and exits. Its runners are to be
    workers of the ``program``; ``caller`` leads to the process that runs its jobs itself.
    """

    def __init__(
        self, orders: Orders, program: Program | None = None, *, caller: tuple[socket.socket, int] | None = None
    ) -> None:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.settimeout(None)  # whatever socket.setdefaulttimeout says
        inherited = (theirs.fileno(), *(() if caller is None else (caller[0].fileno(), caller[1])))
        self.process = subprocess.Popen(
            command("workerbee.bee.child", *inherited, flags=search_flags()),
            pass_fds=inherited,
            stdin=subprocess.DEVNULL,
            stdout=_passed_on(1),
            stderr=_passed_on(2),
            start_new_session=True,
        )
        theirs.close()
        self._socket = ours
        self._saying = threading.Lock()
        self._status: int | None = None
        if program is not None:
            orders = replace(orders, flags=tuple(interpreter_flags()))
        self._say(Start(orders, b"" if program is None else program.dumps()))

    def _say(self, order: Order) -> None:
        with self._saying, suppress(OSError):
            self._socket.sendall(to_line(order))

    def events(self, handle: Callable[[BeeEvent], None]) -> None:
        """Call ``handle`` with each event that the bee reports, until its end."""
        with suppress(OSError, ValueError), self._socket.makefile(encoding="utf-8") as stream:
            for line in stream:
                event: Any = from_line(line)
                if isinstance(event, Ended):
                    self._status = event.status
                handle(event)

    def be_workers_of(self, changed: Program) -> None:
        """Have its runners be workers of this program from the next new function on."""
        self._say(BeWorkersOf(changed.dumps()))

    def drain(self) -> None:
        """Claim nothing more, finish what runs, then exit."""
        self._say(Drain())

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
        return status or self._status or 0  # where SIGCHLD is ignored, the kernel keeps no status


def _passed_on(fd: int) -> int | None:
    """Choose a child's stdout or stderr: ours, or nothing if it is closed, or its number is another file's by now."""
    try:
        return subprocess.DEVNULL if fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC else None
    except OSError:
        return subprocess.DEVNULL
