"""The end of a runner's process, and of a child that a job has forked off it."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import NoReturn


def end_child(error: BaseException | None) -> NoReturn:
    """End this process with the status that a program would have which this error ends."""
    status = 0
    try:
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            status = (error.code or 0) & 0xFF
        elif error is not None:
            status = 1
            traceback.print_exception(type(error), error, error.__traceback__)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def end_in_order() -> NoReturn:
    """End this process as multiprocessing ends a worker: what jobs have left to be done at the exit is done."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 (waits for threads, and ends pools of them)
    atexit._run_exitfuncs()  # noqa: SLF001 (what the interpreter would do beyond takes longer than all the rest)
    with suppress(Exception):  # a job may have put anything in their places
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def end_at_once() -> NoReturn:
    """Print the error that is being handled, and end this process without waiting for threads that jobs have left."""
    try:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(1)
