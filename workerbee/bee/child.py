"""A client's own bee: told what to do over a socket, whose end is the client's end. `LocalBee` is the other side."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import replace

from workerbee import guard, program, resources
from workerbee.bee.printer import Printer
from workerbee.bee.supervisor import Supervisor
from workerbee.orders import BeeEvent, BeWorkersOf, Drain, Ended, Log, Orders, Start, from_line, to_line


def main() -> None:
    """Run as ``workerbee.bee.child SOCKET [CHANNEL MARK]``; the last two lead to a caller's own runner."""
    program.occupy_standard_descriptors(inheritable=True)
    program.reset_signals()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client decides
    printer = Printer()
    client, *caller = map(int, sys.argv[1:])
    status = _serve(ClientLink(socket.socket(fileno=client)), caller, printer)
    printer.finish()
    os._exit(status)  # a runner's leftovers must not keep a batch system's slot


def _serve(client: ClientLink, caller: list[int], printer: Printer) -> int:
    orders = client.orders()
    logger = logging.getLogger("workerbee")
    logger.addHandler(_Telling(client))
    logger.setLevel(orders.log_level)
    logger.propagate = False
    supervisor = Supervisor(
        replace(orders, workers=resources.affordable(orders.workers, logger)),
        logger,
        tell=client.tell,
        forward=printer.put,
        program=client.program,
        caller=(socket.socket(fileno=caller[0]), caller[1]) if caller else None,
    )
    client.listen(
        supervisor, stops=not caller
    )  # else the crew hears the end too, and knows which job the caller was in
    signal.signal(signal.SIGTERM, lambda *_: supervisor.drain())
    status = supervisor.run()
    if orders.memory:
        guard.remove_unused(orders.memory)  # its client may have been killed
    client.tell(Ended(status))
    return status


class ClientLink:
    """The other end of the socket. Messages are lines of JSON both ways."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reading, self._writing = threading.Lock(), threading.Lock()
        self._begun = b""
        self._program = b""
        self._supervisor: Supervisor | None = None

    def orders(self) -> Orders:
        """Read what is said first."""
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
        with self._writing, suppress(OSError):  # it is gone, which `listen` hears
            self._socket.sendall(to_line(event))

    def program(self) -> bytes:
        """The client's program as it was when whatever is in the database by now was stored."""
        if self._supervisor is not None:  # else an order that has come already would be lost
            with suppress(OSError):
                self._hear()
        return self._program

    def listen(self, supervisor: Supervisor, *, stops: bool) -> None:
        """Have the supervisor obey the client from now on; ``stops``: give all back at the client's end."""
        self._supervisor = supervisor

        def serve() -> None:
            with suppress(OSError):  # it died with something of ours unread
                self._hear()  # what came together with the settings
                while self._socket.recv(1, socket.MSG_PEEK):
                    self._hear()
            supervisor.drain(now=stops)

        threading.Thread(target=serve, daemon=True).start()

    def _hear(self) -> None:
        """Obey what has arrived."""
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
    """Has the client log what its bee has to say, as its user has chosen where to."""

    def __init__(self, client: ClientLink) -> None:
        super().__init__()
        self._client = client

    def emit(self, record: logging.LogRecord) -> None:
        self._client.tell(Log(record.levelno, self.format(record)))
