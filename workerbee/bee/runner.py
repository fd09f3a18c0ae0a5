"""The child that only runs user code: it has no connection to the database, and dies with its supervisor.

::

    supervisor ──(function, jobs, quit)──▶ runner ──(done, unusable)──▶ supervisor

Each job is verified, decoded, performed, encoded and signed here, so that this work is spread over the
runners. The messages are `messages`'.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from workerbee import places, resources, script
from workerbee.bee import stack
from workerbee.bee.channel import Channel, Position
from workerbee.bee.exits import end_at_once, end_child, end_in_order
from workerbee.bee.footing import Footing, out_of_the_way
from workerbee.bee.messages import (
    Become,
    CallMessage,
    Finished,
    Forget,
    Learn,
    Outdated,
    Perform,
    Quit,
    Recorded,
    Telling,
    Unusable,
    report,
    told,
)
from workerbee.bee.output import Dividers
from workerbee.bee.shelf import Shelf
from workerbee.bee.work import Usable, Work
from workerbee.blobs import BLOB
from workerbee.errors import FunctionOutdated, FunctionUnavailable, SignatureError, text_of
from workerbee.memory import MEMORY, Memory
from workerbee.perform import Jobs, Performed, perform
from workerbee.program import Program, keep_freed_memory, reset_signals
from workerbee.wire import codec, function_records, functions, inputs, lending, values
from workerbee.wire.failures import encode_error
from workerbee.wire.job import LARGE_BYTES, NO_FUNCTION, EndKind, FunctionRow
from workerbee.wire.signing import Key, Signer

#: Seconds that results may wait to be sent together.
GATHER_SECONDS = 0.01


class Runner:
    """Performs the jobs that come over the channel, until it is told to quit or the other end is gone.

    ``own`` is the caller's function, for jobs that bring none (JobSet.run); ``named`` are functions that
    may be imported by their name, the first one also for jobs that bring none (--function).
    """

    def __init__(
        self,
        channel: Channel,
        mark: Position,
        *,
        bee: str,
        own: Callable[..., Any] | None = None,
        named: Sequence[str] = (),
        max_payload: int = codec.MAX_BYTES,
        number: int = 1,
        footing: Footing | None = None,
        dividers: Dividers | None = None,
        key_file: Path | None = None,
        memory: Memory | None = None,
        shelf: Shelf | None = None,
        signer: Signer | None = None,
        large: lending.Lending | None = None,
    ) -> None:
        self._channel = channel
        self._mark = mark
        self._number = number
        self._key_file = key_file  # found at the start, before jobs change where it is looked for
        self._memory = memory  # for large results, if the client is on this host
        self._shelf = shelf  # for what calls share
        self._signer, self._large = signer, large  # of the caller's own jobset, for large values in files
        self._footing = footing  # None in the caller's own process, in which nothing is repaired
        self._dividers = dividers
        # Divides what a job has printed from what follows; False if it has printed nothing.
        self._divide: Callable[[int], bool] = (lambda _: False) if dividers is None else dividers.divide
        self._ready: tuple[int, int, Usable] | None = None  # the function that was called last
        self._program: Program | None = None
        self._bee = bee
        self._own = own
        self._named = named
        self._max_payload = max_payload
        self._getpid, self._now = os.getpid, time.monotonic  # kept here, as a job may replace them
        self._pid = os.getpid()
        self._work: dict[int, Work] = {}
        self._is_used = False  # by jobs, which may have spoilt this process for functions that are loaded later
        self._done: list[Finished] = []
        self._sent = 0.0
        self._warned: resources.Few[int] = resources.Few()
        self._ending: BaseException | None = None  # what the caller's own function raised
        self._n_unrecorded = 0

    def serve(self) -> None:
        """Serve until the end. If the runner is JobSet.run's caller, this raises what its function raises."""
        while self._do(self._hear()):
            if self._ending is not None and self._n_unrecorded == 0:
                raise self._ending

    def _do(self, telling: Telling | None) -> bool:
        """Obey one message; False at the end. No variable keeps the message, as it may be large."""
        match telling:
            case Perform(jobset, function, calls):
                self._perform_all(jobset, function, list(map(CallMessage._make, calls)))
            case Become(program):
                self._become(Program.loads(program))
            case Learn(jobset, uuid, number, record, is_fresh):
                if jobset not in self._work or self._work[jobset].uuid != UUID(uuid):
                    self._work[jobset] = Work(UUID(uuid), self._key())
                self._work[jobset].learn(number, FunctionRow(*record), fresh=is_fresh)
                self._ready = None
            case Forget(jobset, number):
                self._forget(jobset, number)
            case Recorded():
                self._n_unrecorded -= 1
            case Quit() | None:
                return False
        return True

    def _forget(self, jobset: int, number: int) -> None:
        """Forget a function; with a jobset's last one, also the globals that its functions have shared."""
        self._ready = None
        if work := self._work.get(jobset):
            work.forget(number)
            if not work.records:
                del self._work[jobset]

    def _hear(self) -> Telling | None:
        """Wait for the next message; None when the supervisor is gone."""
        frame = self._channel.receive()
        return None if frame is None else told(frame)

    def _key(self) -> Key | None:
        return Key.load() if self._key_file is None else Key.read(self._key_file)

    def _become(self, program: Program) -> None:
        program.adopt(self._program, self._number)
        self._program = program

    def _perform_all(self, jobset: int, number: int, calls: list[CallMessage]) -> None:
        if self._dividers is not None:
            self._dividers.begin()
        self._mark.prepare(calls[0].n)
        Jobs.of = self._work[jobset].uuid if jobset in self._work else None
        try:
            usable = self._prepared(jobset, number, calls)
        except FunctionOutdated:
            self._refuse(calls, Outdated())
            return
        except FunctionUnavailable as error:
            self._ending = error if self._own is not None else None
            self._refuse(calls, Unusable(jobset, number, str(error), None))
            return
        except BaseException as error:  # noqa: BLE001 (the initializer is user code)
            reason = f"its initializer raised {type(error).__name__}: {text_of(error)}"
            self._refuse(calls, Unusable(jobset, number, reason, encode_error(error)))
            return
        self._is_used = True
        divide = self._divide
        for call in calls:
            if self._ending is None and self._mark.begin(call.n):
                finished = self._perform(call, usable)
                self._finish(finished._replace(printed=True) if divide(call.n) else finished)
            else:
                self._finish(Finished(call.n, EndKind.RECALLED, "", b"", None, 0.0))
        self._mark.between_jobs()
        if self._footing is not None:
            self._footing.after_jobs()
        self._send()

    def _prepared(self, jobset: int, number: int, calls: list[CallMessage]) -> Usable:
        """Give the function, and prepare the process for its jobs."""
        if self._memory is None and any(call.codec == MEMORY for call in calls):
            raise FunctionUnavailable("their arguments are in memory, for the bee of their client alone")
        if self._ready is not None and self._ready[:2] == (jobset, number):
            usable = self._ready[2]
        else:
            usable = self._usable(jobset, number, calls)
            if self._footing is not None:
                self._footing.note()
            # A named function isn't kept: whether it may be called has to be decided for each message's calls.
            self._ready = None if usable.named else (jobset, number, usable)
        if usable.main is not None:
            script.use(usable.main)
        return usable

    def _usable(self, jobset: int, number: int, calls: list[CallMessage]) -> Usable:
        if number == NO_FUNCTION and self._signer is None and any(call.codec == BLOB for call in calls):
            raise FunctionUnavailable("their inputs are in files; JobSet.run takes them, of a JobSet with large_values")
        if self._own is not None:
            return Usable(self._own, self._signer, b"", named=True, large=self._large)
        if number == NO_FUNCTION:
            if not self._named:
                raise FunctionUnavailable("these jobs bring no function: run them with JobSet.run or --function")
            return Usable(functions.resolve(self._named[0]), None, b"", named=True)
        work = self._work[jobset]
        record = work.records[number]
        signed_for = function_records.calls(record.codec) or record.digest
        if record.name not in self._named:
            function, namespaces, main = work.load(number, self._shelf, is_used=self._is_used)
            return Usable(
                function,
                work.signers[number],
                signed_for,
                named=False,
                namespaces=namespaces,
                main=main,
                large=work.large(number) or self._memory,
            )
        signer = work.signers[number]
        if signer is None and any(values.kind(call.codec) == codec.PICKLE for call in calls):
            raise work.unsigned()
        large = None if signer is None else work.large(number)
        return Usable(functions.resolve(record.name), signer, signed_for, named=True, large=large)

    def _refuse(self, calls: list[CallMessage], message: Unusable | Outdated) -> None:
        """Say why calls of a function aren't run, and give them back."""
        self._divide(calls[0].n)
        self._channel.send(*report(message))
        for call in calls:
            self._finish(Finished(call.n, EndKind.RECALLED, "", b"", None, 0.0))
        self._send()

    def _perform(self, call: CallMessage, usable: Usable) -> Finished:
        """Verify, decode, run, encode, sign: one call in, its end as a value out."""
        signer = usable.signer
        if signer is None or not signer.verify_call(call.mac, call.job, call.codec, usable.digest, call.data):
            if not usable.named or call.codec not in (codec.JSON, codec.JSON_CALL):
                return self._failure(call, signer, EndKind.ERROR, SignatureError(call.job), 0.0)
            signer = None  # the result of an unsigned call isn't signed either
        try:
            args, kwargs = usable.arguments(call, self._shelf)
        except BaseException as error:  # noqa: BLE001 (unpickling runs user code)
            return self._failure(call, signer, EndKind.ERROR, error, 0.0)
        # No variable here holds the end: an error's traceback leads to this frame, which would lead back to the error.
        return self._ended(call, usable, signer, perform(usable.function, args, kwargs))

    def _ended(self, call: CallMessage, usable: Usable, signer: Signer | None, end: Performed) -> Finished:
        """Encode and sign how a call has ended."""
        if self._getpid() != self._pid:
            end_child(end.error)  # that the job has forked, and that must not serve as a second runner
        if self._footing is not None:
            self._footing.after_job()
        if self._own is not None and end.kind is EndKind.ERROR:
            self._ending = end.error
            if isinstance(end.error, (KeyboardInterrupt, SystemExit)):
                return Finished(call.n, EndKind.RECALLED, "", b"", None, 0.0)
        if end.error is not None:
            return self._failure(call, signer, end.kind, end.error, end.duration)
        try:
            encoded = self._encode(end.value, call, usable, readable=signer is None)
        except BaseException as error:  # noqa: BLE001 (pickling runs user code)
            self._ending = error if self._own is not None else None
            return self._failure(call, signer, EndKind.ERROR, error, end.duration)
        signer = usable.signer if encoded.codec == BLOB else signer  # nobody would open a file by an unsigned word
        mac = signer.sign_end(call.job, call.run, encoded.codec, encoded.data, is_value=True) if signer else None
        return Finished(call.n, end.kind, encoded.codec, encoded.data, mac, end.duration)

    def _encode(self, value: object, call: CallMessage, usable: Usable, *, readable: bool) -> codec.Encoded:
        function, large = usable.function, usable.large
        lender = None if large is None else large.lender(call.job, call.run)
        if readable:
            encoded = codec.lent(codec.JSON, inputs.check_output(value, self._max_payload).encode(), lender)
        else:
            encoded = codec.encode(value, "the result", self._max_payload, lender)
            if encoded.codec == codec.PICKLE:
                encoded = codec.twinned(encoded, value)
        size = codec.size(encoded)
        if size > codec.WARN_BYTES and encoded.codec != BLOB and id(function) not in self._warned:
            self._warned.add(id(function))
            name = getattr(function, "__qualname__", type(function).__qualname__)
            _warn(codec.too_much("a result", name, size))
        return encoded

    def _failure(
        self, call: CallMessage, signer: Signer | None, kind: EndKind, error: BaseException, duration: float
    ) -> Finished:
        notes = [f"job {call.job}, attempt {call.attempt}, bee {self._bee}, host {resources.host()}"]
        record = encode_error(error, notes=notes, text_only=signer is None)
        mac = signer.sign_end(call.job, call.run, "error", record, is_value=False) if signer else None
        self._n_unrecorded += self._own is not None
        return Finished(call.n, kind, "error", record, mac, duration)

    def _finish(self, finished: Finished) -> None:
        self._done.append(finished)
        now = self._now()
        if now - self._sent > GATHER_SECONDS or len(finished.data) > LARGE_BYTES:
            self._send()

    def _send(self) -> None:
        if self._done:
            with suppress(ConnectionError):  # JobSet.run's caller notices in `serve` that its bee is gone
                self._channel.send(*report(self._done))
            self._done.clear()
        self._sent = self._now()


def _warn(text: str) -> None:
    """Warn, without raising an error, whatever a job has done to `warnings` and to stderr."""
    with suppress(Exception):
        try:
            warnings.warn(text, stacklevel=1)
        except UserWarning:
            sys.stderr.write(f"UserWarning: {text}\n")


def main() -> None:
    """Run as ``bee.runner PARENT SOCKET MARK STDOUT STDERR STACK NUMBER BEE MAX_PAYLOAD … [MODULE:NAME …]``.

    A supervisor starts it. STDOUT and STDERR are the pipes that it reads, STACK is a file for stacks. Three directories
    follow, or empty texts: for what calls share, for the same on a disk, for large values between bee and client.
    """
    parent, sock, mark_fd, *pipes, stack_fd, number, bee, max_payload, shelf, further, memory = sys.argv[1:13]
    _die_with(int(parent))
    faulthandler.enable()  # so that a crash in C shows where it was
    reset_signals()
    keep_freed_memory()
    stack.stand_by(out_of_the_way(int(stack_fd)))
    channel, mark = Channel(socket.socket(fileno=out_of_the_way(int(sock)))), Position(int(mark_fd))
    footing = Footing(out_of_the_way(int(fd)) for fd in pipes)
    runner = Runner(
        channel,
        mark,
        bee=bee,
        max_payload=int(max_payload),
        named=sys.argv[13:],
        number=int(number),
        footing=footing,
        dividers=Dividers(mark, footing.outputs, footing.settle),
        key_file=places.key().absolute(),
        memory=Memory(memory) if memory else None,
        shelf=Shelf(shelf, further=further) if shelf else None,
    )
    try:
        runner.serve()
        end_in_order()
    except BaseException:  # noqa: BLE001 (a job has spoilt what the runner needs)
        end_at_once()


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies. In a container that may be process 1."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit(0)
