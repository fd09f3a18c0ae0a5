"""`flush`: what was submitted before is stored, whoever else submits meanwhile and whatever interrupts a submit."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest

from tests.contract.conftest import OURS, new_id
from tests.servers import Database
from tests.waiting import eventually
from workerbee import WorkerbeeExecutor
from workerbee.client.flusher import Flusher

PATIENCE = 60


@pytest.mark.parametrize("kind", OURS)
def test_flushing_ends_beside_another_thread_that_submits(pool: Any) -> None:
    """It waits for what was submitted before it, not for a moment in which nothing is."""
    stop = threading.Event()

    def submit() -> None:
        while not stop.is_set():
            pool.submit(divmod, 7, 2)
            if len(pool._client._flusher._queue) > 2000:  # enough to starve in, and soon stored at the end
                time.sleep(0.001)

    threads = [threading.Thread(target=submit) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for n in range(3):
            future = pool.submit(divmod, n, 3)
            pool.flush(PATIENCE)
            assert future.job is not None
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    pool.flush(PATIENCE)


def test_an_interrupt_in_a_submit_leaves_nothing_asleep(shared: Database) -> None:
    """Wherever in it: what is queued is stored by a flush, and by the next submit."""
    with WorkerbeeExecutor(1, dsn=shared.dsn, jobset_id=new_id()) as executor:
        executor.submit(int).result(PATIENCE)
        flusher = executor._client._flusher
        for step in range(1, 8):
            eventually(lambda: flusher._is_asleep)
            if not _interrupted(executor, step):
                break
            executor.flush(PATIENCE)
        assert step > 2
        assert executor.submit(divmod, 7, 2).result(PATIENCE) == (3, 1)


def _interrupted(executor: WorkerbeeExecutor, step: int) -> bool:
    """Whether a submit is interrupted before the given line of putting it into the queue."""
    lines = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code is not Flusher.put.__code__:
            return trace if event == "call" else None
        lines += event == "line"
        if lines == step:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        executor.submit(divmod, step, 5)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False
