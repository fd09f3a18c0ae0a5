"""The only caller of jobs: whatever a job does, its end is a value."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeVar
from uuid import UUID

from workerbee.errors import JobFailedError
from workerbee.wire.job import EndKind

P = ParamSpec("P")
R = TypeVar("R")


#: Kept here, because on older Pythons looking up an enum's member takes as long as a small job.
_COMPLETED, _FAILED, _ERROR = EndKind.COMPLETED, EndKind.FAILED, EndKind.ERROR
_gettrace, _settrace, _getprofile, _setprofile = sys.gettrace, sys.settrace, sys.getprofile, sys.setprofile


class Jobs:
    """The jobset, by its UUID, whose jobs this process performs; None in most processes."""

    of: UUID | None = None


class Performed(NamedTuple):
    """The end of a call: completed, failed (it raised JobFailedError) or error. ``duration`` is in seconds."""

    kind: EndKind
    value: object
    error: BaseException | None
    duration: float


def perform(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    clock: Callable[[], float] = time.perf_counter,
) -> Performed:
    """Call the function once. Even SystemExit and KeyboardInterrupt end the call and not the caller.

    ``clock`` is a default value, because jobs may freeze or replace the functions of `time`. Tracing and profiling that
    the call has begun end with it, or the process itself and the next call would be traced.
    """
    trace, profile = _gettrace(), _getprofile()
    began = clock()
    try:
        try:
            value = function(*args, **kwargs)
        finally:
            if _getprofile() is not profile:
                _setprofile(profile)
            if _gettrace() is not trace:
                _settrace(trace)
    except BaseException as error:  # noqa: BLE001 (that is the point)
        duration = clock() - began
        _begin_in_job(error)
        kind = _FAILED if issubclass(type(error), JobFailedError) else _ERROR
        return Performed(kind, None, error, duration)
    return Performed(_COMPLETED, value, None, clock() - began)


def _begin_in_job(error: BaseException) -> None:
    """Have the traceback of the exception that is being handled begin in the user's code.

    This is a function of its own, because a frame with its own traceback in a variable lives, with all of the job's
    values, until a garbage collection.
    """
    trace = sys.exc_info()[2]
    BaseException.with_traceback(error, trace.tb_next if trace is not None else None)


def catch_all_exceptions(job_function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a job function so that whatever it raises has the job tried again.

    Every exception is re-raised as JobFailedError, with the original as its cause; KeyboardInterrupt
    and SystemExit are not, so that a person can still stop the process. Be careful: a broken machine
    then turns all jobs that it claims into failures.
    """

    @wraps(job_function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return job_function(*args, **kwargs)
        except (JobFailedError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            raise JobFailedError(f"{type(error).__name__}: {error}") from error

    return guarded
