"""Retries of what the database refuses for now: with pauses, and for as long as the kind of the error deserves."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import psycopg2
from psycopg2 import errors

from workerbee.errors import DatabaseUnavailableError, UnsupportedDatabaseError
from workerbee.store.trouble import Trouble, sort

T = TypeVar("T")

#: Seconds for which an unforeseen error is tried again, and an address that has never answered this process.
DOUBT_SECONDS, STRANGER_SECONDS = 180.0, 10.0
#: Failures that are logged: the first may only say how a connection has ended; one 2 s later says why there is none.
LOGGED = 1, 6

#: Our own random numbers: the program may have seeded the global ones, and we mustn't draw from these.
jitter = random.Random()  # noqa: S311 (no secret)


def backoff(limit: float = 1.0) -> Iterator[float]:
    """Give the seconds before each next try: they grow to ``limit``, and are random so that processes spread out."""
    pause = 0.05
    while True:
        yield pause * (1 + jitter.random())
        pause = min(limit, pause * 2)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return True


def retrying(
    action: Callable[[], T],
    *,
    patience: float | None,
    pause: Callable[[float], bool] = _sleep,
    log: logging.Logger,
    opening: bool = False,
) -> T:
    """Give the value of ``action``, called again after passing errors, for ``patience`` seconds (None: for ever).

    ``pause(seconds)`` waits before the next try; False ends the patience. An unforeseen error is tried again for some
    minutes. With ``opening``, as constructors have it, such an error is raised at once as UnsupportedDatabaseError, and
    an address that has never answered is tried for some seconds only, as it may be wrong.

    Raises other errors as they are, and DatabaseUnavailableError when the patience is over.
    """
    began, logged = time.monotonic(), ""
    for n_failures, seconds in enumerate(backoff(), 1):
        try:
            return action()
        except (psycopg2.Error, DatabaseUnavailableError) as error:
            now = time.monotonic()
            if n_failures == 1:
                began = now
            limit = _limit(error, patience, opening=opening)
            if limit == 0:
                if opening and isinstance(error, psycopg2.Error):
                    raise UnsupportedDatabaseError(f"PostgreSQL refuses what is needed: {one_line(error)}") from error
                raise
            if n_failures in LOGGED and (text := one_line(error)) != logged:
                log.warning("%s; trying again%s", text, "" if limit is None else f" for {limit:.0f} s")
                logged = text
            if (limit is not None and now > began + limit) or not pause(seconds):
                if sort(error) is Trouble.UNKNOWN or (opening and getattr(error, "stranger", False)):
                    raise
                raise DatabaseUnavailableError(f"PostgreSQL hasn't come back: {one_line(error)}") from error
    raise AssertionError("backoff never ends")


def _limit(error: BaseException, patience: float | None, *, opening: bool) -> float | None:
    """Give the seconds for which to try again after such an error; None: for ever."""
    kind = sort(error)
    if kind is Trouble.UNKNOWN:
        most = 0.0 if opening else DOUBT_SECONDS
    elif kind is not Trouble.PASSING:
        most = 0.0
    elif opening and isinstance(error, DatabaseUnavailableError) and error.stranger:
        most = STRANGER_SECONDS
    else:
        return patience
    return most if patience is None else min(most, patience)


def one_line(error: Exception) -> str:
    """Put what libpq says in several lines into one, and add what it may mean that a server can only be read."""
    text = " ".join(str(error).split())
    return f"{text}{_READ_ONLY}" if isinstance(error, errors.ReadOnlySqlTransaction) else text


_READ_ONLY = " (a standby, say: name the primary, too, with target_session_attrs=read-write, or wait for its promotion)"
