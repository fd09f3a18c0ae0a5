"""A pytest plugin for Dask's own tests: an executor is the default scheduler, and outcomes are written down.

Its settings are in the environment: ``DASK_TESTS_EXECUTOR`` is ``loky`` or ``workerbee``,
``DASK_TESTS_OUTCOMES`` the file to write, and ``DASK_TESTS_CHOSEN`` says which tests are run: ``only`` those of
a list, those ``without`` another, and of each parametrised test only the ``first`` case.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import dask
import dask.array.utils
import dask.dataframe.utils
import loky
import pytest

from workerbee import WorkerbeeExecutor

WORKERS = 2

outcomes: dict[str, str] = {}
executor = pytest.StashKey[Executor]()


def pytest_configure(config: pytest.Config) -> None:
    kinds = {"loky": loky.ProcessPoolExecutor, "workerbee": WorkerbeeExecutor}
    config.stash[executor] = kinds[os.environ["DASK_TESTS_EXECUTOR"]](WORKERS)
    dask.config.set(scheduler=config.stash[executor])
    # Dask's comparisons compute on its synchronous scheduler if nobody says otherwise: here on the default one.
    for compare in (dask.array.utils.assert_eq, dask.dataframe.utils.assert_eq):
        compare.__defaults__ = tuple(None if value == "sync" else value for value in compare.__defaults__)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = json.loads(os.environ["DASK_TESTS_CHOSEN"])
    seen = set(wanted.get("without", ()))
    chosen = []
    for item in items:
        name = item.nodeid.partition("[")[0]
        if item.nodeid in wanted.get("only", [item.nodeid]) and name not in seen:
            chosen.append(item)
            if wanted.get("first"):
                seen.add(name)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def pytest_runtest_logreport(report: Any) -> None:
    """Keep the worst of a test's set-up, call and tear-down."""
    if report.nodeid not in outcomes or report.outcome != "passed":
        outcomes[report.nodeid] = report.outcome


def pytest_unconfigure(config: pytest.Config) -> None:
    if executor in config.stash:
        config.stash[executor].shutdown()
    Path(os.environ["DASK_TESTS_OUTCOMES"]).write_text(json.dumps(outcomes))
