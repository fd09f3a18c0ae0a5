"""Starting a bee as a child of this process: it drains when told to, and stops when this process dies."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from workerbee.bee.channel import Caller
from workerbee.client.prints import Prints
from workerbee.orders import BeeEvent, BeWorkersOf, Drain, Ended, Order, Orders, Start, from_line, to_line
from workerbee.program import Program, command, interpreter_flags, search_flags


class LocalBee:
    """A bee that is a child of this process; `child` is its side of the conversation.

    It is started without orders, so that it gets ready while its client still looks for the jobset. ``caller`` leads to
    the process that runs its jobs itself. ``prints`` say where its stdout and stderr go. When the socket to it is
    closed, the bee gives back what it holds and exits.
    """

    def __init__(self, *, caller: Caller | None = None, prints: tuple[Prints, ...] = ()) -> None:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.settimeout(None)  # the user may have called socket.setdefaulttimeout
        inherited = (theirs.fileno(), *(() if caller is None else caller.descriptors))
        self._prints = prints or (Prints(1), Prints(2))
        try:
            self.process = subprocess.Popen(
                command("workerbee.bee.child", *inherited, flags=search_flags()),
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=self._prints[0].target,
                stderr=self._prints[1].target,
                start_new_session=True,
            )
        finally:
            for way in self._prints:
                way.begin()
        theirs.close()
        self._socket = ours
        self._saying = threading.Lock()
        self._status: int | None = None

    def begin(self, orders: Orders, program: Program | None = None) -> None:
        """Give it its orders; its runners belong to the ``program``.

        They hold the database's password, so they go over the socket, never through its argv or environment.
        """
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
        """Have its runners belong to this program from the next new function on."""
        self._say(BeWorkersOf(changed.dumps()))

    def drain(self) -> None:
        """Claim nothing more, finish what runs, then exit."""
        self._say(Drain())

    def stop(self) -> None:
        """Give everything back and exit now."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def disown(self) -> None:
        """In a forked child, close the socket: the bee must notice its client's end although the child lives on."""
        with suppress(OSError):
            os.close(self._socket.detach())

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its exit status; it is killed after ``timeout`` seconds."""
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        for way in self._prints:
            way.finish()
        self._socket.close()  # the stream stays open, as its last events may still be unread
        return status or self._status or 0  # where SIGCHLD is ignored, the kernel keeps no status
