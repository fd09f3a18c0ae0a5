"""A client under chaos: submits calls at a steady pace and writes down what it is told of each.

``python -m tests.chaos.client DSN JOBSET FIRST N SECONDS PATIENCE``: the calls with keys FIRST … FIRST+N-1,
spread over SECONDS; then at most PATIENCE seconds for what is still open. Every third call is one that
isn't JSON. The record in CHAOS_CLIENT has a line for each thing it was told:

- ``stored KEY``: flush() has returned, so that all keys up to this one are stored for good
- ``result KEY SHA`` / ``error KEY TYPE``: what its future gave
- ``withdrawn KEY``: it was cancelled, and is submitted again
- ``lost KEY``: the server has lost it in a failover, and it is submitted again
- ``hung KEY``: its future didn't end; ``broke TEXT``: the executor did
- ``done``: it has got to its end
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections import deque
from concurrent.futures import Future, wait
from contextlib import suppress
from functools import partial
from typing import Any

from tests.chaos.jobs import (
    CYCLE,
    FILES,
    KILLED,
    WITHDRAWN,
    array_of,
    execute,
    execute_tuple,
    may_be_cancelled,
    size_of,
)
from workerbee import WorkerbeeExecutor
from workerbee.errors import DatabaseUnavailableError, JobLostError

BURST = 25
#: Futures of jobs that the server has lost.
LOST: deque[Future[Any]] = deque()


def main(dsn: str, jobset: str, first: int, n: int, seconds: float, patience: float) -> None:
    """See the module."""
    record = os.open(os.environ["CHAOS_CLIENT"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def tell(text: str) -> None:
        os.write(record, f"{text}\n".encode())

    began = time.monotonic()
    executor = connected(dsn, jobset, began + seconds + patience)
    futures: dict[Future[Any], int] = {}
    try:
        for start in range(first, first + n, BURST):
            keys = range(start, min(start + BURST, first + n))
            shared = [(key + n) % (3 * n) for key in keys if key % CYCLE == KILLED]
            for key in (*keys, *filter(may_be_cancelled, shared)):
                submit(executor, tell, futures, key)
            executor.flush()
            tell(f"stored {keys[-1]}")
            withdraw(executor, tell, futures)
            time.sleep(max(0.0, began + seconds * (keys[-1] + 1 - first) / n - time.monotonic()))
    except Exception as error:  # noqa: BLE001 (that is a finding)
        tell(f"broke {error!r}")
    while (left := began + seconds + patience - time.monotonic()) > 0:
        if not again(executor, tell, futures) and all(f.done() for f in futures):
            break
        wait(futures, min(left, 1.0))
    open_ones = wait(futures, max(1.0, began + seconds + patience - time.monotonic())).not_done
    for future in open_ones:
        tell(f"hung {futures[future]}")
    if not open_ones:
        executor.shutdown()
    tell("done")
    sys.stdout.flush()
    os._exit(0)


def submit(executor: WorkerbeeExecutor, tell: Any, futures: dict[Future[Any], int], key: int) -> None:
    """Submit a key's call, and write down how it ends."""
    arrays = [array_of(key)] if size_of(key) else []
    call: tuple[Any, ...] = (execute_tuple, (key, *arrays)) if key % 3 == 2 else (execute, key)
    future = executor.submit(*call)
    futures[future] = key
    future.add_done_callback(partial(report, tell, key))


def withdraw(executor: WorkerbeeExecutor, tell: Any, futures: dict[Future[Any], int]) -> None:
    """Cancel what is to be cancelled, waiting or running, and submit again all that was cancelled, by whomever."""
    open_ones = [future for future, key in futures.items() if may_be_cancelled(key) and not future.done()]
    for future in open_ones:
        if futures[future] % CYCLE == WITHDRAWN:
            future.cancel()
    with suppress(DatabaseUnavailableError):
        executor.cancel_running([future for future in open_ones if futures[future] % CYCLE == KILLED][:3])
    again(executor, tell, futures)


def again(executor: WorkerbeeExecutor, tell: Any, futures: dict[Future[Any], int]) -> bool:
    """Submit again what was cancelled, by whomever, and what the server has lost; whether there was any."""
    ended = [future for future, key in futures.items() if may_be_cancelled(key) and future.cancelled()]
    while LOST:
        ended.append(LOST.popleft())
    for future in ended:
        submit(executor, tell, futures, futures.pop(future))
    return bool(ended)


def connected(dsn: str, jobset: str, deadline: float) -> WorkerbeeExecutor:
    """An executor; it says at once if the database is away, so that whoever wants to wait tries again."""
    place = f"file://{os.environ[FILES]}" if FILES in os.environ else None
    while True:
        try:
            return WorkerbeeExecutor(0, jobset_id=jobset, dsn=dsn, large_values=place, large_values_from=100_000)
        except DatabaseUnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def report(tell: Any, key: int, future: Future[Any]) -> None:
    """Write down how a future ended."""
    if future.cancelled():
        tell(f"withdrawn {key}" if may_be_cancelled(key) else f"error {key} Cancelled")
    elif isinstance(error := future.exception(), JobLostError):
        tell(f"lost {key}")
        LOST.append(future)
    elif error is not None:
        tell(f"error {key} {type(error).__name__} {str(error)[:300]!r}")
    else:
        tell(f"result {key} {digest(future.result())}")


def digest(result: Any) -> str:
    """A result in a few letters."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()[:16]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), float(sys.argv[6]))
