"""Waiting for events instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(predicate: Callable[[], T], timeout: float = 30, what: str = "") -> T:
    """The first truthy value of ``predicate()``, asked every 10 ms at first and every 100 ms later.

    Raises AssertionError after ``timeout`` seconds: it names ``what`` was waited for and shows the last
    value. An exception of the predicate's goes through.
    """
    deadline = time.monotonic() + timeout
    pause = 0.01
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(
                f"not within {timeout:g} s: {what or getattr(predicate, '__qualname__', predicate)}"
                f" (the last value was {value!r})"
            )
        time.sleep(pause)
        pause = min(0.1, pause * 1.5)
    return value
