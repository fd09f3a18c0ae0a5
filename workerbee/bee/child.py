"""A client's own bee: it gets its orders over a socket, and ends when the client closes it. See `LocalBee`."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from workerbee import guard, program, resources
from workerbee.bee.channel import Caller
from workerbee.bee.crew import Crew
from workerbee.bee.printer import Printer
from workerbee.orders import BeeEvent, BeWorkersOf, Drain, Ended, Log, Orders, Start, from_line, to_line

if TYPE_CHECKING:
    from workerbee.bee.supervisor import Supervisor


def main() -> None:
    """Run as ``workerbee.bee.child SOCKET [CHANNEL MARK STDOUT STDERR]``; the last four are a `Caller`'s."""
    program.occupy_standard_descriptors(inheritable=True)
    program.reset_signals()
    program.keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the client too, which decides what to do
    printer = Printer()
    client, *caller = map(int, sys.argv[1:])
    status = _serve(ClientLink(socket.socket(fileno=client)), Caller.of(*caller) if caller else None, printer)
    printer.finish()
    os._exit(status)  # threads that are left over must not keep a batch system's slot busy


def _serve(client: ClientLink, caller: Caller | None, printer: Printer) -> int:
    orders = client.orders()
    logger = logging.getLogger("workerbee")
    logger.addHandler(_Telling(client))
    logger.setLevel(orders.log_level)
    logger.propagate = False
    orders = replace(orders, workers=resources.affordable(orders.workers, logger))
    crew = Crew(orders, caller=caller, program=client.program(), forward=printer.put)
    crew.complete()
    from workerbee.bee.supervisor import Supervisor  # noqa: PLC0415 (meanwhile the runners start)

    supervisor = Supervisor(orders, crew, logger, tell=client.tell, program=client.program)
    client.listen(
        supervisor, stops=caller is None
    )  # with a caller of its own, the crew notices the end, and knows which job the caller was in
    signal.signal(signal.SIGTERM, lambda *_: supervisor.drain())
    status = supervisor.run()
    if orders.memory:
        guard.remove_unused(orders.memory)  # a client that was killed hasn't removed it
    client.tell(Ended(status))
    return status


class ClientLink:
    """The bee's end of the socket to its client. Messages are lines of JSON both ways."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._begun = b""
        self._program = b""
        self._supervisor: Supervisor | None = None

    def orders(self) -> Orders:
        """Read the first message, which holds the bee's orders."""
        while b"\n" not in self._begun:
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                sys.exit(0)
            self._begun += chunk
        line, _, self._begun = self._begun.partition(b"\n")
        start = from_line(line)
        assert isinstance(start, Start)  # noqa: S101 (see `LocalBee`)
        self._program = start.program
        return start.orders

    def tell(self, event: BeeEvent) -> None:
        with self._writing, suppress(OSError):  # the client is gone, which `listen` notices
            self._socket.sendall(to_line(event))

    def program(self) -> bytes:
        """Give the client's program, at least as new as the functions that the database has now."""
        if self._supervisor is not None:  # not earlier, or an order that has already come would be lost
            with suppress(OSError):
                self._hear()
        return self._program

    def listen(self, supervisor: Supervisor, *, stops: bool) -> None:
        """Have the supervisor obey the client from now on. ``stops``: give everything back when the client ends."""
        self._supervisor = supervisor

        def serve() -> None:
            with suppress(OSError):  # the client died before it had read all that we sent
                self._hear()  # orders that came together with the first message
                while self._socket.recv(1, socket.MSG_PEEK):
                    self._hear()
            supervisor.drain(now=stops)

        threading.Thread(target=serve, daemon=True).start()

    def _hear(self) -> None:
        """Read the orders that have arrived, and obey them."""
        with self._reading:
            with suppress(BlockingIOError):
                while chunk := self._socket.recv(1 << 16, socket.MSG_DONTWAIT):
                    self._begun += chunk
            *lines, self._begun = self._begun.split(b"\n")
            for line in lines:
                self._obey(from_line(line))

    def _obey(self, order: object) -> None:
        match order:
            case BeWorkersOf(program):
                self._program = program
            case Drain():
                assert self._supervisor is not None  # noqa: S101 (see `program`)
                self._supervisor.drain()


class _Telling(logging.Handler):
    """Sends log records to the client, which logs them where its user wants them."""

    def __init__(self, client: ClientLink) -> None:
        super().__init__()
        self._client = client

    def emit(self, record: logging.LogRecord) -> None:
        self._client.tell(Log(record.levelno, self.format(record)))
