"""The child that only runs user code: it has no connection to the database, and dies with its supervisor.

::

    supervisor ──(function, jobs, quit)──▶ runner ──(done, unusable)──▶ supervisor

Each job is verified, decoded, performed, encoded and signed here, so that this work is spread over the
runners. The messages:

- ``("function", jobset, uuid, number, record)``  what calls of this function need; loaded when first used
- ``("jobs", jobset, function, [(n, job, run, attempt, codec, data, mac), …])``  to be done in this order
- ``("done", [(n, kind, codec, data, mac, duration), …])``  kind ``recalled``: was taken back, did not run
- ``("unusable", jobset, function, reason, error record or None)``  its jobs can't be run here
- ``("ended", n, …)``  only from a caller's own runner: the exception that ends the process is recorded
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

from workerbee import codec, functions
from workerbee.channel import Channel, Mark
from workerbee.job import NO_FUNCTION, Function
from workerbee.perform import perform
from workerbee.signing import Key, Signer

#: Seconds that results may wait to be sent together.
GATHER = 0.01


class Call(NamedTuple):
    """One job as it came from the supervisor."""

    n: int
    job: int
    run: int
    attempt: int
    codec: str
    data: bytes
    mac: bytes | None


class Finished(NamedTuple):
    """One job as it goes back."""

    n: int
    kind: str
    codec: str
    data: bytes
    mac: bytes | None
    duration: float


class Work:
    """The functions of one jobset as this runner has loaded them, and the signer of the jobset."""

    def __init__(self, uuid: UUID, key: Key | None) -> None:
        self.signer = Signer(key, uuid) if key is not None else None
        self.records: dict[int, Function] = {}
        self.loaded: dict[int, Callable[..., Any]] = {}

    def function(self, number: int) -> Callable[..., Any]:
        """The callable, loaded at its first use. Raises FunctionUnavailable, or what its initializer raises."""
        if number not in self.loaded:
            record = self.records[number]
            if self.signer is None or not self.signer.verify(
                record.mac, "function", 0, 0, record.codec, record.digest, record.body
            ):
                raise functions.FunctionUnavailable(f"the signature of {record.name} doesn't hold with this bee's key")
            loaded = functions.load(record.codec, record.body, record.python)
            functions.initialize(loaded)
            self.loaded[number] = loaded.function
        return self.loaded[number]


class Runner:
    """Performs jobs as they come over the channel, until it is told to quit or the other end is gone."""

    def __init__(self, channel: Channel, mark: Mark, *, bee: str, own: Callable[..., Any] | None = None) -> None:
        self._channel = channel
        self._mark = mark
        self._bee = bee
        self._own = own  # for jobs that bring no function: the caller's, in JobSet.run
        self._key = Key.load()
        self._work: dict[int, Work] = {}
        self._done: list[Finished] = []
        self._sent = 0.0

    def serve(self) -> None:
        while (message := self._channel.receive()) is not None:
            match message:
                case ("function", jobset, uuid, number, record):
                    work = self._work.setdefault(jobset, Work(UUID(uuid), self._key))
                    work.records[number] = Function(*record)
                case ("jobs", jobset, function, calls):
                    self._perform_all(jobset, function, [Call(*c) for c in calls])
                case ("quit",):
                    return

    def _perform_all(self, jobset: int, number: int, calls: list[Call]) -> None:
        try:
            function, signer, digest = self._usable(jobset, number)
        except functions.FunctionUnavailable as error:
            self._refuse(jobset, number, calls, str(error), None)
            return
        except BaseException as error:  # noqa: BLE001 (the initializer is user code)
            self._refuse(jobset, number, calls, f"its initializer raised {error!r}", codec.encode_error(error))
            return
        for call in calls:
            if self._mark.begin(call.n):
                self._finish(self._perform(call, function, signer, digest))
            else:
                self._finish(Finished(call.n, "recalled", "", b"", None, 0.0))
        self._mark.rest()
        self._send()

    def _usable(self, jobset: int, number: int) -> tuple[Callable[..., Any], Signer | None, bytes]:
        if number == NO_FUNCTION or self._own is not None:
            if self._own is None:
                raise functions.FunctionUnavailable(
                    "these jobs bring no function: run them with JobSet.run or --function"
                )
            return self._own, None, b""
        work = self._work[jobset]
        return work.function(number), work.signer, work.records[number].digest

    def _refuse(self, jobset: int, number: int, calls: list[Call], reason: str, error: bytes | None) -> None:
        self._channel.send(("unusable", jobset, number, reason, error))
        for call in calls:
            self._finish(Finished(call.n, "recalled", "", b"", None, 0.0))
        self._send()

    def _perform(self, call: Call, function: Callable[..., Any], signer: Signer | None, digest: bytes) -> Finished:
        """Verify, decode, run, encode, sign: one call in, its end as a value out."""
        if signer is not None and not signer.verify(call.mac, "call", call.job, 0, call.codec, digest, call.data):
            return self._failure(call, signer, "error", codec.SignatureError(call.job), 0.0)
        try:
            args, kwargs = codec.decode_call(call.codec, call.data)
        except BaseException as error:  # noqa: BLE001 (unpickling runs user code)
            return self._failure(call, signer, "error", error, 0.0)
        end = perform(function, args, kwargs)
        if end.error is not None:
            kind = "failed" if end.status == "retry" else "error"
            return self._failure(call, signer, kind, end.error, end.duration)
        try:
            encoded = self._encode(end.value)
        except BaseException as error:  # noqa: BLE001 (pickling runs user code)
            return self._failure(call, signer, "error", error, end.duration)
        mac = signer.sign("result", call.job, call.run, encoded.codec, b"", encoded.data) if signer else None
        return Finished(call.n, "completed", encoded.codec, encoded.data, mac, end.duration)

    def _encode(self, value: object) -> codec.Encoded:
        if self._own is not None:
            return codec.Encoded(codec.JSON, codec.check_output(value).encode())
        return codec.encode(value, "the result")

    def _failure(self, call: Call, signer: Signer | None, kind: str, error: BaseException, duration: float) -> Finished:
        notes = [f"job {call.job}, attempt {call.attempt}, bee {self._bee}, host {socket.gethostname()}"]
        record = codec.encode_error(error, notes=notes, text_only=signer is None)
        mac = signer.sign("error", call.job, call.run, "error", b"", record) if signer else None
        return Finished(call.n, kind, "error", record, mac, duration)

    def _finish(self, finished: Finished) -> None:
        self._done.append(finished)
        now = time.monotonic()
        if now - self._sent > GATHER:
            self._send()

    def _send(self) -> None:
        if self._done:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            self._channel.send(("done", [tuple(f) for f in self._done]))
            self._done.clear()
        self._sent = time.monotonic()


def main() -> None:
    """Run as ``python -m workerbee.runner SOCKET_FD MARK_FD BEE`` by a supervisor."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the supervisor's to handle
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sock = socket.socket(fileno=int(sys.argv[1]))
    mark = Mark(int(sys.argv[2]))
    Runner(Channel(sock), mark, bee=sys.argv[3]).serve()


def _die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies (Linux; elsewhere the socket's end does)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() == 1:
            sys.exit(0)


if __name__ == "__main__":
    main()
