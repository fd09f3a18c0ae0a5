"""The future of one job: a real `concurrent.futures.Future` that asks the database before it is cancelled."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING, RUNNING
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from workerbee.errors import text_of
from workerbee.wire.failures import host_of
from workerbee.wire.imports import Bound
from workerbee.wire.printed import NOTHING, Output

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

# Held while a future's condition is made, and while a future without one ends, so that these don't overlap.
# It is reentrant, because signal handlers and finalizers may look at futures at any moment.
_OBSERVING = threading.RLock()
if hasattr(os, "register_at_fork"):  # a forked child may look at a future of its parent
    os.register_at_fork(
        before=_OBSERVING.acquire,
        after_in_child=_OBSERVING._at_fork_reinit,  # type: ignore[attr-defined]  # noqa: SLF001 (as concurrent.futures does)
        after_in_parent=_OBSERVING.release,
    )


#: Characters of an error's message that a future shows.
MESSAGE_CHARS = 120
_ENDED = (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)

_Callback = Callable[[], None]


def _call(task: _Callback) -> None:
    task()


def _say_nothing(_interrupt: BaseException) -> None:
    pass


class _Observed:
    """An attribute that is made when it is first read, which also notes that the future is observed."""

    def __set_name__(self, _owner: type[JobFuture], name: str) -> None:
        self._name = name

    def __get__(self, future: JobFuture | None, _owner: type[JobFuture] | None = None) -> Any:
        if future is None:
            return self
        future.observe()
        return vars(future)[self._name]


class _Waiters(list[Any]):
    """Threads that wait for several futures by `wait` or `as_completed`; an interrupt of one is passed to ``tell``."""

    def __init__(self, tell: Callable[[BaseException], None]) -> None:
        super().__init__()
        self._tell = tell

    def append(self, waiter: Any) -> None:
        if not isinstance(waiter.event, _Event):
            waiter.event = _Event(self._tell)  # it can't be set yet, as this is its first future
        super().append(waiter)


class _Event(threading.Event):
    def __init__(self, tell: Callable[[BaseException], None]) -> None:
        super().__init__()
        self._tell = tell

    def wait(self, timeout: float | None = None) -> bool:
        try:
            return super().wait(timeout)
        except KeyboardInterrupt as interrupt:
            self._tell(interrupt)
            raise


class JobFuture(Bound, Future[T]):
    """The future of one job, known by its numbers ``job`` and ``run`` once it is stored; until then they are None."""

    # What a `Future` needs for those who wait for it (its condition and lists, a dozen objects) is made when the first
    # one looks. Most of many futures have ended by then, and what was never made needs no time of the garbage
    # collector, which with 20,000 futures took half of all that a client does.

    # What a new future has is the class's, as it is made for each submit.
    _state: str = PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _observed = False
    job: int | None = None
    run: int | None = None
    sign: bytes | None = None  # by what the job is known to be this call: its digest, else its signature
    queued = True  # not yet taken by the flusher
    wanted = True  # somebody may still wait for it
    is_remembered = False  # the same call, submitted later, is to have this one's result
    is_held = False  # who cancels it ends it, and nobody else does meanwhile
    inserted = False  # this process has added the job or opened its run, and didn't find it in the jobset
    lent: Any = None  # keeps the file with the job's arguments, later the one with its result
    _condition: Any = _Observed()
    _waiters: Any = _Observed()
    _done_callbacks: Any = _Observed()

    # The superclass's __init__ isn't called, as it would make all of these.
    def __init__(
        self,
        cancel_job: Callable[[JobFuture], bool],
        call_later: Callable[[_Callback], None] = _call,
        say_what_goes_on: Callable[[BaseException], None] = _say_nothing,
        read_output: Callable[[JobFuture[Any]], Output] = lambda _: Output.of(NOTHING),
    ) -> None:
        """``call_later`` runs the callbacks of a future that ends by itself.

        ``say_what_goes_on`` is told of an interrupt of who waits for it.
        """
        self._cancel_job = cancel_job
        self._call_later = call_later
        self._say_what_goes_on = say_what_goes_on
        self._read_output = read_output

    def _stands_for(self) -> tuple[str, str]:
        return "the future of a job", "pass its result(), and submit what needs it when it is there"

    def observe(self) -> None:
        """Make the condition and the lists that threads wait on."""
        made = {
            "_condition": threading.Condition(),
            "_waiters": _Waiters(self._say_what_goes_on),
            "_done_callbacks": [],
        }
        with _OBSERVING:
            for name, thing in made.items():
                vars(self).setdefault(name, thing)  # a signal handler in this thread may have made it meanwhile
            self._observed = True

    def result(self, timeout: float | None = None) -> T:
        """Give the job's result; see `concurrent.futures.Future.result`."""
        # The superclass tests the exception's truth value, and some exceptions are false.
        error = self._exception if self._state == FINISHED else self.exception(timeout)
        if error is None:
            return self._result  # type: ignore[no-any-return]  # it has ended
        try:
            raise error
        finally:
            del error, self  # otherwise the traceback would refer to the future, and the future to it

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for what the job raises; see `concurrent.futures.Future.exception`."""
        try:
            return super().exception(timeout)
        except KeyboardInterrupt as interrupt:
            self._say_what_goes_on(interrupt)
            raise

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        """See `concurrent.futures.Future.add_done_callback`."""
        super().add_done_callback(
            partial(_tell_asyncio, fn) if getattr(fn, "__module__", "") == "asyncio.futures" else fn
        )

    def output(self) -> Output:
        """Read what the job printed in its last execution that has ended, as far as it is kept: stdout, then stderr.

        It is read from the database, and is "" if nothing was printed or no execution has ended. Its ``stdout`` and
        ``stderr`` are the two separately.
        """
        return self._read_output(self)

    def __repr__(self) -> str:
        state = {CANCELLED_AND_NOTIFIED: "cancelled"}.get(self._state, self._state).lower()
        if state == "finished":
            error = self._exception
            state += f" returned {type(self._result).__name__}" if error is None else f" raised {self._failure(error)}"
        return f"<{type(self).__name__} at {id(self):#x} state={state}>"

    def _failure(self, error: BaseException) -> str:
        """Describe the error in a line, with the job, and the host on which it failed."""
        message = " ".join(text_of(error).split())
        said = f"{type(error).__name__}: {message[:MESSAGE_CHARS]}{'…' * (len(message) > MESSAGE_CHARS)}".removesuffix(
            ": "
        )
        host = host_of(error)
        place = f" on {host}" if host is not None else ""
        return said if self.job is None else f"{said}, job {self.job}{place}"

    @property
    def stored_job(self) -> int:
        """The job's id, of a future that has one."""
        assert self.job is not None  # noqa: S101
        return self.job

    @property
    def ended(self) -> bool:
        """Tell the same as `done()`, without making a condition."""
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED)

    def cancel(self) -> bool:
        """Cancel the job if it isn't running and nobody else waits for it.

        A job that a bee has begun and given back, or that waits for another attempt, can be cancelled, though its
        future still says that it is running. This waits at most a second for the database; False if the job runs, has
        ended, or the database doesn't answer in time.
        """
        if not self.done() and self._cancel_job(self) and self._end_as_cancelled():
            leaving = self._call_back()
            if leaving is not None:
                raise leaving  # it may be an interrupt that is meant for this thread
        return self.cancelled()

    def abandon(self) -> bool:
        """Cancel this future, and leave its job alone; False if the future has ended otherwise."""
        if self._end_as_cancelled() and self._observed and self._done_callbacks:
            self._call_later(self._call_all_back)
        return self._state != FINISHED

    def begin(self) -> None:
        """Note that the job may have started."""
        with _OBSERVING:
            if not self._observed:
                self._state = RUNNING if self._state == PENDING else self._state
                return
        with self._condition:
            if self._state == PENDING:
                self.set_running_or_notify_cancel()

    def resolve(self, value: Any, error: BaseException | None) -> None:
        """End with a value or an error, unless it has ended before."""
        with _OBSERVING:
            if not self._observed:
                if self._state not in _ENDED:
                    self._result, self._exception = value, error
                    self._state = FINISHED
                return
        with self._condition:
            if self._state in _ENDED:
                return
            self._result, self._exception = value, error
            self._state = FINISHED
            for waiter in self._waiters:
                waiter.add_result(self) if error is None else waiter.add_exception(self)
            self._condition.notify_all()
        if self._done_callbacks:
            self._call_later(self._call_all_back)

    def _end_as_cancelled(self) -> bool:
        """End as cancelled; False if it had ended already."""
        with _OBSERVING:
            if not self._observed:
                if self._state in _ENDED:
                    return False
                self._state = CANCELLED_AND_NOTIFIED
                return True
        with self._condition:
            if self._state in _ENDED:
                return False
            self._state = CANCELLED
            # Waiters are told at once (python/cpython#136655): nobody else will pick this future up.
            self.set_running_or_notify_cancel()
            self._condition.notify_all()
        return True

    def _call_back(self) -> BaseException | None:
        """Call all done callbacks. Returns the last interrupt or exit that they raised."""
        leaving = None
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException as error:  # noqa: BLE001 (it's the user's)
                if not issubclass(type(error), Exception):
                    leaving = error
                _tell(self, error)
        return leaving

    def _call_all_back(self) -> None:
        self._call_back()


def not_ended(futures: Iterable[JobFuture]) -> list[JobFuture]:
    """Choose the futures that haven't ended, each once."""
    return [future for future in dict.fromkeys(futures) if future._state not in _ENDED]  # noqa: SLF001 (our own)


def abandon_all(futures: Iterable[JobFuture]) -> None:
    """Cancel these futures, maybe a million, and leave their jobs alone."""
    observed = []
    with _OBSERVING:
        for future in futures:
            if future._observed:  # noqa: SLF001 (our own)
                observed.append(future)
            elif future._state not in _ENDED:  # noqa: SLF001
                future._state = CANCELLED_AND_NOTIFIED  # noqa: SLF001
    for future in observed:
        future.abandon()


def _tell_asyncio(callback: Callable[[Future[Any]], object], future: Future[Any]) -> None:
    """Replace errors of a job that asyncio doesn't take for these.

    After a StopIteration it would wait for ever, where later versions raise this error too. By a CancelledError it
    would count who awaits as cancelled, of which a task group says nothing.
    """
    error = None if future.cancelled() else future.exception()
    if type(error) is StopIteration or type(error) is CancelledError:
        future = Future()
        stands_for_it = RuntimeError(f"{type(error).__name__} can't be raised into an asyncio future")
        stands_for_it.__cause__ = error
        future.set_exception(stands_for_it)
    callback(future)


def _tell(future: JobFuture, error: BaseException) -> None:
    with suppress(BaseException):  # formatting an exception runs user code
        logging.getLogger("concurrent.futures").error("exception calling callback for %r", future, exc_info=error)
