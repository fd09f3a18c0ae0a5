"""``python -m workerbee.bee``: a process that claims and runs jobs. Only a command; nothing imports it."""

from __future__ import annotations

import io
import json
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import FrameType
from typing import Any

import click

from workerbee import codec, resources, server
from workerbee.errors import WorkerbeeError
from workerbee.job import valid_id
from workerbee.logs import print_to_stdout
from workerbee.supervisor import EXIT_DATABASE, EXIT_USAGE, Settings, Supervisor


def _names(_: click.Context, __: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not all(name.partition(":")):
            raise click.BadParameter(f"{name!r} is not of the form MODULE:NAME")
    return names


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("jobset_id", required=False)
@click.option(
    "--dsn",
    help="libpq connection string; else PGHOST, PGSERVICE …, else the embedded server. Passwords go into ~/.pgpass.",
)
@click.option("--workers", type=click.IntRange(1), default=None, help="Runner processes (default: one a core).")
@click.option(
    "--function",
    "functions",
    multiple=True,
    metavar="MODULE:NAME",
    callback=_names,
    help="Run the jobs that bring no function with this one, and those that name it and have JSON arguments. "
    "May be repeated: the first one is for jobs that bring none.",
)
@click.option("--busywait", is_flag=True, help="Wait for more work for ever instead of ending when all jobs are done.")
@click.option(
    "--wait",
    type=click.FloatRange(0),
    default=600.0,
    show_default=True,
    help="Seconds to wait for the jobset and its first job.",
)
@click.option("--lifetime", type=click.FloatRange(0), help="Seconds after which to drain and exit with status 75.")
@click.option("--max-jobs", type=click.IntRange(1), help="Jobs after which to drain and exit with status 75.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Seconds that running jobs get at a SIGTERM.",
)
@click.option(
    "--max-payload",
    type=click.IntRange(1),
    default=codec.MAX_BYTES,
    show_default=True,
    help="Bytes of a result; a job with a larger one fails.",
)
@click.option(
    "--max-n-retry-attempts",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="Attempts at a job that raises JobFailedError and brings no limit of its own, as an executor's do.",
)
@click.option(
    "--reconnect-timeout",
    type=click.FloatRange(0),
    default=3600.0,
    show_default=True,
    help="Seconds of outage after which to exit with status 69.",
)
@click.option("--inherit", type=int, hidden=True, help="The descriptor that a client started this bee with.")
def main(inherit: int | None, **options: Any) -> None:
    """Claim and run the jobs of JOBSET_ID, or of every jobset, until all are done.

    SIGTERM or SIGINT: claim nothing more, finish what runs within the grace period; a second one gives
    it all back at once. Exit status: 0 nothing left to do, or stopped; 2 usage; 69 no database; 70 no such
    jobset, or it can't go on; 75 lifetime or number of jobs reached.
    """
    printer = _Printer(sys.stdout.fileno())
    sys.stdout = io.TextIOWrapper(printer, "utf-8", "backslashreplace", write_through=True)
    try:
        status = _as_child(inherit) if inherit is not None else _by_hand(**options)
    except WorkerbeeError as error:
        click.echo(f"workerbee: {error}", err=True)
        status = EXIT_DATABASE if isinstance(error, OSError) else EXIT_USAGE
    printer.finish()
    os._exit(status)  # a runner's leftovers must not keep a batch system's slot


def _by_hand(
    dsn: str | None, workers: int | None, functions: tuple[str, ...], jobset_id: str | None, **options: Any
) -> int:
    """A bee that a person or a batch system started."""
    log = logging.getLogger("workerbee")
    print_to_stdout(log)
    if jobset_id is not None:
        valid_id(jobset_id)
    with server.of_command(dsn) as found:
        settings = Settings(
            found.dsn,
            jobset_id=jobset_id,
            workers=resources.affordable(workers or resources.cores(), log),
            functions=functions,
            **(options | {"busywait": options["busywait"] or jobset_id is None}),
        )
        supervisor = Supervisor(settings, log, forward=_forward)
        _on_signals(supervisor)
        return supervisor.run()


def _as_child(fd: int) -> int:
    """A client's own bee: told what to do over a socket, whose end is the client's end."""
    sock = socket.socket(fileno=fd)
    stream = sock.makefile("rw", encoding="utf-8")
    facts = json.loads(stream.readline())
    own = facts.pop("own", None)
    lock = threading.Lock()

    def tell(event: dict[str, Any]) -> None:
        with lock:
            try:
                stream.write(json.dumps(event) + "\n")
                stream.flush()
            except OSError:
                pass  # the client is gone; the loop below hears it

    logger = logging.getLogger("workerbee")
    logger.addHandler(_Telling(tell))
    logger.setLevel(facts.pop("log_level"))
    logger.propagate = False
    facts["workers"] = resources.affordable(facts["workers"], logger)
    supervisor = Supervisor(
        Settings(**facts),
        logger,
        tell=tell,
        forward=_forward,
        own=None if own is None else (socket.socket(fileno=own[0]), own[1]),
    )

    def listen() -> None:
        with suppress(OSError):  # it died with something of ours unread
            for line in stream:
                if line.strip() == "drain":
                    supervisor.drain()
        supervisor.drain(now=own is None)  # else the crew hears it too, and knows which job the caller was in

    threading.Thread(target=listen, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the client decides
    signal.signal(signal.SIGTERM, lambda *_: supervisor.drain())
    status = supervisor.run()
    tell({"event": "ended", "status": status})
    return status


class _Telling(logging.Handler):
    """What a client's bee has to say is logged by the client, whose user has chosen where to."""

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell({"event": "log", "level": record.levelno, "message": self.format(record)})


def _on_signals(supervisor: Supervisor) -> None:
    def stop(_: int, __: FrameType | None) -> None:
        supervisor.drain()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _forward(text: bytes) -> None:
    """What jobs print is printed."""
    sys.stdout.buffer.write(text)


class _Printer(io.RawIOBase):
    """The bee's stdout, for itself and its jobs: written by a thread, because a bee must not wait for its reader.

    What comes while the reader is more than ``LAG`` bytes behind is lost, and a line says how much that was.
    """

    LAG = 64_000_000
    #: Seconds that a reader has at the end, as long as it reads.
    PATIENCE = 10.0

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._texts: SimpleQueue[bytes] = SimpleQueue()
        self._n_taken = self._n_printed = self._n_lost = 0
        self._thread = threading.Thread(target=self._print, daemon=True)
        self._thread.start()

    def writable(self) -> bool:
        return True

    def write(self, text: Any) -> int:
        data = bytes(text)
        if self._n_taken - self._n_printed >= self.LAG:
            self._n_lost += len(data)
        elif data:
            self._say_what_is_lost()
            self._take(data)
        return len(data)

    def _take(self, data: bytes) -> None:
        self._n_taken += len(data)
        self._texts.put(data)

    def _say_what_is_lost(self) -> None:
        if self._n_lost:
            self._take(f"\n[workerbee: {self._n_lost} bytes of output are missing here: they came too fast]\n".encode())
            self._n_lost = 0

    def finish(self) -> None:
        """Wait a little for what isn't written yet."""
        self._say_what_is_lost()
        self._texts.put(b"")
        deadline = time.monotonic() + self.PATIENCE
        n_printed = -1
        while self._thread.is_alive() and self._n_printed > n_printed and time.monotonic() < deadline:
            n_printed = self._n_printed
            self._thread.join(1)

    def _print(self) -> None:
        for data in iter(self._texts.get, b""):
            with suppress(OSError):  # nobody reads it any more
                self._write(memoryview(data))
            self._n_printed += len(data)

    def _write(self, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data[: 1 << 16]) :]
            except BlockingIOError:  # whoever started us shares it with one that must not wait
                select.select([], [self._fd], [])


if __name__ == "__main__":
    main()
