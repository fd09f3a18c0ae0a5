"""Jobsets to look at, made by real verbs of the store, and the page over them as a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

import httpx

from tests.bees import PROJECT
from tests.store.hive import Hive, Puppet, success
from tests.waiting import eventually
from workerbee.dashboard.app import application, listen, web_server
from workerbee.dashboard.safety import Tokens
from workerbee.store import Connection, Limits
from workerbee.wire.causes import cause_of_record
from workerbee.wire.job import EndKind, Outcome

ONCE = Limits(1, 0.0, 0.0)


def fail_one(bee: Puppet, message: str, kind: str = "ValueError", trace: str = "") -> int:
    """Have the job at the front of what waits fail for good; its id."""
    batch = bee.take()
    [job] = batch.jobs
    trace = trace or (
        'Traceback (most recent call last):\n  File "survey.py", line 31, in measure\n    fit = model.fit(image)\n'
        f'  File "models.py", line 212, in fit\n    raise {kind}(message)\n{kind}: {message}'
    )
    record = json.dumps({"type": kind, "message": message, "traceback": trace})
    outcome = Outcome(job.id, batch.run, EndKind.ERROR, "error", record.encode(), None, 0.25)
    verdict = bee.fail(batch, outcome, ONCE, json.dumps({"type": kind}), cause_of_record(record).digest)
    assert verdict == "failed"
    return job.id


def make_study(connection: Connection, name: str = "study") -> tuple[Hive, Puppet]:
    """Completed jobs that took a minute, failed (for two causes), running and waiting ones."""
    hive = Hive(connection, name)
    bee = hive.bee("node-17")
    ids = hive.add(40)
    bee.complete([success(i, duration=60.0) for i in ids], [bee.take(40)], hint=None)
    for n in range(6):
        hive.add()
        fail_one(bee, f"unlucky {n}")
    for _ in range(2):
        hive.add()
        fail_one(bee, "no such file: 'image.fits'", "FileNotFoundError")
    hive.add(3)
    bee.take(3)
    hive.add(9)
    return hive, bee


class Page:
    """``workerbee dashboard`` as a process, and who looks at it."""

    def __init__(self, dsn: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._log = TemporaryFile()  # noqa: SIM115 (closed with the page)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workerbee", "dashboard", "--port", "0", "--dsn", dsn, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
        self.port = int(self.says(r"http://[^:/]+:(\d+)/login")[1])

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return os.pread(self._log.fileno(), 1 << 24, 0).decode("utf-8", "replace")

    def says(self, pattern: str, timeout: float = 30) -> re.Match[str]:
        """Wait until its output matches."""

        def found() -> re.Match[str] | None:
            assert self.process.poll() is None or re.search(pattern, self.output), self.output
            return re.search(pattern, self.output)

        return eventually(found, timeout, f"{pattern!r} in {self.output}")  # type: ignore[return-value]

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        """What lets in the next browser."""
        return re.findall(r"token=([\w-]+)", self.output)[-1]

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A browser without a screen, let in."""
        with httpx.Client(base_url=self.url, timeout=30) as client:
            client.get("/login", params={"token": self.token}).raise_for_status()
            yield client

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)
        self._log.close()


@contextmanager
def page(dsn: str, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[Page]:
    """The page on this database, until the end of the block."""
    running = Page(dsn, *arguments, environment=environment)
    try:
        yield running
    finally:
        running.close()


@contextmanager
def local(dsn: str, *, read_only: bool = False) -> Iterator[httpx.Client]:
    """The same application in this process, and a client that is let in."""
    tokens = Tokens(None, lambda _: None)
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        server = web_server(application(dsn, server="here", tokens=tokens, port=port, read_only=read_only))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                client.get("/login", params={"token": tokens.once}).raise_for_status()
                yield client
        finally:
            server.should_exit = True
            thread.join()
