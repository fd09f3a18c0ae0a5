"""Workerbee as a backend of joblib, and with it of scikit-learn.

::

    import workerbee.joblib  # makes the name "workerbee" known to joblib, which looks for no backends itself

    with joblib.parallel_config("workerbee", executor=executor):
        search.fit(X, y)
"""

from __future__ import annotations

import os
import time
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from joblib import Parallel, register_parallel_backend
from joblib.parallel import AutoBatchingMixin, ParallelBackendBase

from workerbee import WorkerbeeExecutor, resources
from workerbee.errors import RemoteError, text_of
from workerbee.threads import limited
from workerbee.wire.values import Steady


class WorkerbeeBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Runs the calls of `joblib.Parallel` as jobs.

    They go to ``executor``, which stays open, or to one of the backend's own, made with
    ``executor_options`` and gone when the backend is. ``n_jobs`` bounds how many batches of calls are
    under way; -1 (the default here) stands for all runners of the bees that are alive, and waits up to
    ``wait_for_bees`` seconds for a first one: TimeoutError. A nested Parallel runs in threads of its
    runner, so that no job ever waits for a runner that it keeps busy itself. ``inner_max_num_threads``
    limits BLAS and OpenMP in the runners, where threadpoolctl is installed; None: together the calls under way
    have as many threads as there are cores, unless OMP_NUM_THREADS or the like says otherwise.
    """

    default_n_jobs = -1
    supports_inner_max_num_threads = True
    supports_retrieve_callback = True
    supports_sharedmem = False
    uses_threads = False

    def __init__(
        self,
        executor: WorkerbeeExecutor | None = None,
        *,
        wait_for_bees: float = 10.0,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        **executor_options: Any,
    ) -> None:
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        if executor is not None and executor_options:
            raise TypeError(f"with an executor given, {', '.join(executor_options)} would be ignored")
        self._executor = executor or WorkerbeeExecutor(**executor_options)
        self._wait_for_bees = wait_for_bees
        self._open: set[Future[Any]] = set()
        self._max_threads: int | None = None
        self._steady = Steady()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Say how many batches may be under way. Raises ValueError for 0."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        n_jobs = self.default_n_jobs if n_jobs is None else n_jobs
        # At least 2, as joblib runs a single job in the calling process, and bees may be elsewhere for a reason.
        return n_jobs if n_jobs > 0 else max(2, self._live_workers() + 1 + n_jobs)

    def _live_workers(self) -> int:
        deadline = time.monotonic() + self._wait_for_bees
        while not (workers := self._executor.live_workers()):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"no bee is there after {self._wait_for_bees:g} s: start one, or say n_jobs=N to queue jobs for "
                    "bees to come, or wait longer with parallel_config('workerbee', wait_for_bees=SECONDS)"
                )
            time.sleep(0.1)
        return workers

    def configure(self, n_jobs: int = 1, parallel: Parallel | None = None, **_: Any) -> int:
        """Get ready for a call of Parallel; how many batches it may have under way."""
        # Weak, or each would keep the other, and an executor of our own, alive until a garbage collection.
        self.parallel = weakref.proxy(parallel)
        n = self.effective_n_jobs(n_jobs)
        self._max_threads = self.inner_max_num_threads
        if self._max_threads is None and not any(name in os.environ for name in self.MAX_NUM_THREADS_VARS):
            self._max_threads = max(1, resources.cores() // n)
        return n

    def compute_batch_size(self) -> int:
        """Say how many calls make a batch; as they are, if the Parallel that was configured last has ended since."""
        try:
            return int(super().compute_batch_size())
        except ReferenceError:  # it was to print that
            return int(self._effective_batch_size)

    def start_call(self) -> None:
        """Take arrays to stay as they are until this call of Parallel ends, as joblib's own backends do."""
        self._steady = Steady()

    def submit(self, func: Callable[[], Any], callback: Callable[[Future[Any]], Any] | None = None) -> Future[Any]:
        """Make a job of a batch of calls."""
        with self._steady.used():
            future = _submitted(self._executor, func, self._max_threads)
        self._open.add(future)
        future.add_done_callback(self._open.discard)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Give what a batch returned; raises what it raised, or RemoteError for what joblib can't take as an error."""
        error = out.exception()
        if error is not None and not _takes_a_traceback(error):
            raise RemoteError(type(error).__qualname__, text_of(error), str(error.__cause__))
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: FBT001, FBT002 (joblib's)
        """Cancel what is under way, and kill what runs: joblib has given up on this call."""
        self._executor.cancel_running(self._open.copy())

    def terminate(self) -> None:
        """End what belongs to this call; the next one may be of other work."""
        self.reset_batch_stats()


def _takes_a_traceback(error: BaseException) -> bool:
    """Tell whether an error's traceback can be removed, as joblib does in a callback; a frozen dataclass refuses."""
    try:
        error.__traceback__ = None
    except BaseException:  # noqa: BLE001 (the user's)
        return False
    return True


def _submitted(executor: Executor, batch: Callable[[], Any], max_threads: int | None) -> Future[Any]:
    """Submit a batch and give its future; what can't be submitted is an error of the batch.

    joblib submits from callbacks too, where an exception would be lost, and its call would never end.
    """
    try:
        return executor.submit(perform, batch, max_threads)
    except Exception as error:  # noqa: BLE001 (see above)
        failed: Future[Any] = Future()
        failed.set_exception(error)
        return failed


def perform(batch: Callable[[], Any], max_threads: int | None) -> Any:
    """Run a batch of calls; in a runner."""
    with limited(max_threads):
        return batch()


register_parallel_backend("workerbee", WorkerbeeBackend)
# Who fits a model to large data has no other way to pass it.
warnings.filterwarnings("ignore", f"a call of {__name__}:perform takes", UserWarning)
