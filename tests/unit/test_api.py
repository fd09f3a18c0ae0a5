"""What users import: the names, their signatures, and how little an import costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from concurrent.futures import Executor, Future
from typing import Any

import pytest

import workerbee
from workerbee import JobSet, WorkerbeeExecutor
from workerbee.client.futures import JobFuture
from workerbee.executor import OptionsView

NAMES = {
    "JobFailedError",
    "JobSet",
    "UniqueInputDataConstraintError",
    "WorkerbeeExecutor",
    "__version__",
    "catch_all_exceptions",
    "open",
}


def test_the_public_names() -> None:
    """These and no others; each is there, and a tab completes it."""
    assert set(workerbee.__all__) == NAMES
    assert set(dir(workerbee)) >= NAMES
    for name in NAMES:
        assert getattr(workerbee, name) is not None


def test_other_names_are_not_there() -> None:
    """A misspelt name is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="no attribute 'WorkerBeeExecutor'"):
        workerbee.WorkerBeeExecutor  # noqa: B018


def parameters(function: Any) -> dict[str, tuple[Any, Any]]:
    """Kind and default of each parameter."""
    found = inspect.signature(function).parameters.values()
    return {p.name: (p.kind, p.default) for p in found if p.name != "self"}


EITHER, BY_NAME, BY_PLACE = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.POSITIONAL_ONLY,
)
NEEDED = inspect.Parameter.empty


def test_the_executor_is_made_as_documented() -> None:
    """max_workers by place, everything else by name, with these defaults."""
    expected: dict[str, tuple[Any, Any]] = {
        "max_workers": (EITHER, None),
        "jobset_id": (BY_NAME, None),
        **dict.fromkeys(("dsn", "host", "port", "user", "password", "dbname", "initializer"), (BY_NAME, None)),
        "initargs": (BY_NAME, ()),
        "max_tasks_per_child": (BY_NAME, None),
        "max_n_retry_attempts": (BY_NAME, 10),
        "logger_name": (BY_NAME, "workerbee"),
        "reconnect_timeout": (BY_NAME, 3600.0),
        "max_payload": (BY_NAME, 256_000_000),
        "prefix_output": (BY_NAME, False),
        "large_values": (BY_NAME, None),
        "large_values_from": (BY_NAME, 1_000_000),
    }
    assert parameters(WorkerbeeExecutor) == expected


@pytest.mark.parametrize("cls", [WorkerbeeExecutor, OptionsView])
def test_it_is_an_executor(cls: type[Any]) -> None:
    """The executor and its views have the base class and the signatures of the standard library's."""
    assert issubclass(cls, Executor)
    assert issubclass(JobFuture, Future)
    submit = parameters(cls.submit)
    assert submit.pop("fn") == (BY_PLACE, NEEDED)
    assert {kind for kind, _ in submit.values()} == {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }, "a job's keywords are its own"
    assert parameters(cls.shutdown) == {"wait": (EITHER, True), "cancel_futures": (BY_NAME, False)}
    assert {k: v for k, v in parameters(cls.map).items() if v[0] is BY_NAME} == {
        "timeout": (BY_NAME, None),
        "chunksize": (BY_NAME, 1),
        "buffersize": (BY_NAME, None),
    }
    options = {"priority", "timeout", "run_at", "max_n_retry_attempts", "unique", "speculate", "version"}
    assert parameters(cls.with_options) == dict.fromkeys(options, (BY_NAME, None))


def test_the_jobset_is_used_as_documented() -> None:
    """The signatures of the origin's class."""
    servers = dict.fromkeys(("host", "port", "user", "password", "dbname"), (EITHER, None))
    places = {"large_values": (BY_NAME, None), "large_values_from": (BY_NAME, 1_000_000)}
    names = {"jobset_id": (EITHER, NEEDED), **servers, "logger_name": (EITHER, "workerbee")}
    assert parameters(JobSet) == names | places
    assert parameters(JobSet.setup_jobset) == {"ignore_existing_jobset": (EITHER, False)}
    assert parameters(JobSet.add_job) == {"input_data": (EITHER, NEEDED)}
    assert parameters(JobSet.add_jobs) == {"input_datas": (EITHER, NEEDED)}
    assert list(parameters(JobSet.run)) == [
        "job_function",
        "busywait",
        "max_busywait_sleep",
        "max_failure_sleep",
        "max_n_retry_attempts",
    ]


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


NEW_MODULES = "import sys, typing; before = set(sys.modules); {0}; print(*sorted(set(sys.modules) - before))"


def test_the_package_is_imported_for_next_to_nothing() -> None:
    """Neither the driver, nor cloudpickle, nor any room is loaded before it is needed."""
    new = set(fresh(NEW_MODULES.format("import workerbee")).split())
    assert {name for name in new if name.startswith("workerbee")} == {"workerbee", "workerbee._version"}
    assert not new & {"psycopg2", "cloudpickle", "asyncio", "logging", "concurrent.futures"}
    assert len(new) < 8, sorted(new)


def test_a_runner_loads_no_driver() -> None:
    """What every runner process imports knows nothing of the database, the client or the command line."""
    new = set(fresh(NEW_MODULES.format("import workerbee.bee.runner")).split())
    assert not new & {"psycopg2", "click", "rich", "workerbee.store", "workerbee.client.client", "workerbee.server"}
    assert not new & {"numpy", "asyncio"}


def test_importing_configures_no_logging() -> None:
    """The loggers are the user's."""
    code = "import logging, workerbee; workerbee.WorkerbeeExecutor, workerbee.JobSet; "
    assert fresh(code + "print(logging.root.handlers, logging.getLogger('workerbee').handlers)") == "[] []"


def test_the_version_is_a_version() -> None:
    """It can be read without any room."""
    assert fresh("import workerbee; print(workerbee.__version__)")[0].isdigit()
