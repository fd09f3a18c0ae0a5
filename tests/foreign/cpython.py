"""CPython's own tests of concurrent.futures, with `WorkerbeeExecutor` in the place of the process pool.

Run as ``python cpython.py CLASS`` with the server named by libpq's environment; ``test`` must be importable.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing
import subprocess
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from workerbee import WorkerbeeExecutor
from workerbee.errors import EncodingError, RemoteError

#: The classes of the suite that any executor out of this process can have, by the modules that they are in since 3.12.
CLASSES = {
    "AsCompletedTests": "test_as_completed",
    "ExecutorDeadlockTest": "test_deadlock",
    "FailingInitializerMixin": "test_init",
    "InitializerMixin": "test_init",
    "ProcessPoolExecutorTest": "test_process_pool",
    "ProcessPoolShutdownTest": "test_shutdown",
    "WaitTests": "test_wait",
}

LOCKS = "multiprocessing's locks and managers can only be given to its own children"
ON_DEMAND = "a bee starts all its runners at once, so that the first jobs needn't wait for them"
INNER = "replaces inner parts of ProcessPoolExecutor"
AT_SUBMIT = "submit itself raises what can't be pickled, so that the mistake is shown where it was made"

#: The tests that are left out, and why.
LEFT_OUT = {
    "test_cancel_futures": "expects some to have run: ours cancels also what is with a bee and has not begun",
    "test_error_at_task_pickle": AT_SUBMIT,
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": INNER,
    "test_hang_gh83386": "written for threads: skips itself for process pools, which hang in it",
    "test_idle_process_reuse_multiple": ON_DEMAND,
    "test_idle_process_reuse_one": ON_DEMAND,
    "test_killed_child": "a runner that dies is replaced, and its job tried again: the executor doesn't break",
    "test_max_tasks_per_child_defaults_to_spawn_context": "there are no start methods: runners are always new programs",
    "test_max_workers_negative": "max_workers=0 means that the bees are elsewhere",
    "test_max_workers_too_large": "of Windows alone",
    "test_processes_terminate": LOCKS,
    "test_python_finalization_error": INNER,
    "test_ressources_gced_in_workers": LOCKS,
    "test_saturation": LOCKS,
    "test_shutdown_deadlock_pickle": AT_SUBMIT,
}

#: The tests whose error is another one here. What a job, its arguments or its result raise is that job's own
#: error and breaks nothing else, and what would end an interpreter doesn't travel as itself.
OTHER_ERRORS: dict[str, type[BaseException]] = {
    "test_error_at_task_unpickle": Exception,
    "test_error_during_result_unpickle_in_result_handler": Exception,
    "test_exit_at_task_unpickle": RemoteError,
    "test_exit_during_func_exec_on_worker": RemoteError,
    "test_exit_during_result_pickle_on_worker": EncodingError,
    "test_exit_during_result_unpickle_in_result_handler": RemoteError,
}


class ProcessPoolExecutor(WorkerbeeExecutor):
    """Ours, with the private attributes of CPython's that its tests look at."""

    def __init__(self, max_workers: int | None = None, mp_context: Any = None, **options: Any) -> None:
        super().__init__(max_workers, **options)

    @property
    def _broken(self) -> BaseException | None:
        return self._client._broken

    @property
    def _processes(self) -> dict[int, Ending]:
        process = self._client._bee.process
        return {process.pid: Ending(process.wait)}

    @property
    def _executor_manager_thread(self) -> Ending:
        return Ending(self._client.ended.wait)

    _call_queue = _executor_manager_thread


class Ending:
    """Something that can be waited for as for a thread or a process."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self._wait = wait

    def join(self) -> None:
        self._wait()

    join_thread = join


concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor  # type: ignore[misc]


class WorkerbeeMixin:
    """Gives a class of the suite our executor. There is no ``ctx``: it would be a start method."""

    executor_type = ProcessPoolExecutor
    worker_count = 3

    def get_context(self) -> Any:
        return multiprocessing.get_context("spawn")

    def _check_crash(self, error: type[BaseException], *args: Any, **options: Any) -> None:
        error = OTHER_ERRORS.get(self._testMethodName, error)  # type: ignore[attr-defined]
        super()._check_crash(error, *args, **options)  # type: ignore[misc]


def run_python(*args: str) -> tuple[int, bytes, bytes]:
    """In place of ``assert_python_ok``: the program finds our executor in concurrent.futures too."""
    *options, program = args
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import cpython\n{program}"
    done = subprocess.run([sys.executable, *options, program], capture_output=True, check=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


def suite_of(name: str) -> type[unittest.TestCase]:
    """One class of the suite, made with our executor as it makes its own with process pools."""
    module = importlib.import_module("test.test_concurrent_futures")
    util: ModuleType = module
    if hasattr(module, "__path__"):
        util = importlib.import_module("test.test_concurrent_futures.util")
        module = importlib.import_module(f"test.test_concurrent_futures.{CLASSES[name]}")
    if hasattr(module, "assert_python_ok"):
        module.assert_python_ok = run_python
    tests = getattr(module, name)
    left_out = {test: unittest.skip(why)(lambda _: None) for test, why in LEFT_OUT.items() if hasattr(tests, test)}
    return type(name, (WorkerbeeMixin, tests, util.ExecutorMixin, util.BaseTestCase), left_out)


if __name__ == "__main__":
    tests = unittest.defaultTestLoader.loadTestsFromTestCase(suite_of(sys.argv[1]))
    done = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(tests)
    sys.exit(not done.wasSuccessful() or done.testsRun == len(done.skipped))
