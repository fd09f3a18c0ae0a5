"""What a type checker knows of the public face. Nobody runs this: `mypy` reads it, and each line is a test."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, Future
from typing import Any

from typing_extensions import assert_type

import workerbee
from workerbee import JobFailedError, JobSet, WorkerbeeExecutor, catch_all_exceptions


def halved(x: int, *, exactly: bool = False) -> float:
    return x / 2 if exactly else x // 2


def described(job: dict[str, Any]) -> dict[str, str]:
    if not job:
        raise JobFailedError("nothing to describe")
    return {"of": str(job)}


def the_type_of_a_result_is_that_of_the_function(executor: WorkerbeeExecutor) -> None:
    future = executor.submit(halved, 3, exactly=True)
    assert_type(future.result(), float)
    assert_type(future.job, int | None)
    assert_type(executor.map(halved, range(9)), Iterator[float])
    assert_type(list(executor.map(described, [{}], chunksize=2, buffersize=8)), list[dict[str, str]])
    assert_type(executor.with_options(priority=1).submit(described, {}).result(), dict[str, str])
    assert_type(executor.submit(lambda: "word").result(timeout=1.0), str)
    standard: Future[float] = future
    assert_type(standard.result(), float)


def a_wrong_call_is_seen(executor: WorkerbeeExecutor) -> None:
    executor.submit(halved, "3")  # type: ignore[arg-type]
    executor.submit(halved, 3, exact=True)  # type: ignore[call-arg]
    executor.submit(halved)  # type: ignore[call-arg]
    executor.map(3, range(9))  # type: ignore[arg-type]


def it_is_an_executor_to_who_wants_one() -> Executor:
    return WorkerbeeExecutor(jobset_id="typed").with_options(timeout=60)


def what_is_stored(executor: WorkerbeeExecutor) -> None:
    assert_type(executor.results(described, on_error="return"), Iterator[dict[str, Any]])
    assert_type(executor.progress().completed, int)
    assert_type(executor.retry()[0].result(), Any)
    with workerbee.open("typed") as study:
        assert_type(study.retry(status="failed"), int)
        assert_type(study.wait(timeout=1.0).percent, int)


def the_same_script_everywhere(jobset: JobSet) -> None:
    assert_type(jobset.setup_jobset(ignore_existing_jobset=True), bool)
    jobset.run(described)
    jobset.run(catch_all_exceptions(described))
    jobset.run(halved)  # type: ignore[arg-type]
