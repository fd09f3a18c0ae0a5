"""The dispatcher runs a client's user code (unpickling, callbacks) apart from the client's own threads.

One thread runs the tasks in order. If one task takes long, another thread goes on with the next, so that a callback
that waits for a second future, or for ever, doesn't delay other callbacks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

Callback = Callable[[], None]

#: Seconds in one task after which another thread goes on with the others, and how many may be held up at once.
HELD_UP_SECONDS, MOST_HELD_UP = 0.1, 100


class Dispatcher:
    """Runs tasks; any thread may put one. Somebody calls `tend` now and then while it `is_behind`."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callback | None] = SimpleQueue()
        self._workers: list[_Worker] = []  # the last one takes tasks; each of the others is still in one
        self._lock = threading.RLock()  # reentrant, as a finalizer may put a task at any moment
        self._closed = False

    def put(self, task: Callback) -> None:
        """Run a task soon; after `close`, at once."""
        with self._lock:
            if not self._closed:
                self._tasks.put(task)
                self.tend()
                return
        _run(task)

    def is_behind(self) -> bool:
        """Tell whether tasks wait."""
        return not self._tasks.empty()

    def tend(self) -> None:
        """Make sure that a thread takes tasks, if there are any."""
        with self._lock:
            if self.is_behind() and not (self._workers and self._workers[-1].takes_tasks()):
                self._workers = [worker for worker in self._workers if worker.is_alive()]
                if len(self._workers) < MOST_HELD_UP:
                    self._hire()

    def _hire(self) -> None:
        with suppress(RuntimeError):  # the interpreter ends
            worker = _Worker(self._tasks)
            worker.start()
            if self._workers:
                self._workers[-1].relieved = True
            self._workers.append(worker)

    def is_caller(self) -> bool:
        """Tell whether this is called by a task."""
        thread = threading.current_thread()
        return isinstance(thread, _Worker) and thread.tasks is self._tasks

    def close(self) -> None:
        """Return when all that was put is done."""
        with self._lock:
            self._closed = True
            for _ in self._workers:
                self._tasks.put(None)
        for worker in iter(self._first_alive, None):
            worker.join(HELD_UP_SECONDS)
            self.tend()
        self._workers = []  # so that ended threads are freed even if something keeps this object

    def _first_alive(self) -> _Worker | None:
        return next((worker for worker in self._workers if worker.is_alive()), None)


class _Worker(threading.Thread):
    def __init__(self, tasks: SimpleQueue[Callback | None]) -> None:
        super().__init__(name="workerbee callbacks", daemon=True)
        self.tasks = tasks
        self._began: float | None = None
        self.relieved = False

    def takes_tasks(self) -> bool:
        """Tell whether it will take the next one before long."""
        began = self._began
        return self.is_alive() and (began is None or time.monotonic() - began < HELD_UP_SECONDS)

    def run(self) -> None:
        while not self.relieved and (task := self.tasks.get()) is not None:
            self._began = time.monotonic()
            _run(task)
            del task  # so that what it holds is freed before the wait
            self._began = None


def _run(task: Callback) -> None:
    try:
        task()
    except BaseException:
        logging.getLogger("concurrent.futures").exception("what was to be done for a future has failed")
