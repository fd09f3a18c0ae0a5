"""A bug is fixed: what is completed stays, and what failed, waits or is submitted again runs the new code."""

from __future__ import annotations

import logging
from concurrent.futures import wait
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.contract import jobs
from tests.contract.conftest import Gate, Open
from tests.servers import Database
from tests.waiting import eventually
from workerbee.wire import function_records

#: ``f`` with and without its bug; both say where they ran.
BUGGY = """
    def f(path, x):
        with open(path, "a") as file: file.write(f"old_{x}\\n")
        if x % 2: raise ValueError(x)
        return x
"""
MENDED = """
    def f(path, x):
        with open(path, "a") as file: file.write(f"new_{x}\\n")
        return x
"""
MENDED_AGAIN = MENDED.replace("new", "newer")


def defined(source: str) -> Any:
    """The function ``f`` of a source, as a script defines it."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(dedent(source), space)
    return space["f"]


def done(executor: Any, f: Any, path: Path, numbers: Any) -> list[Any]:
    """The results of these calls, or their exceptions."""
    futures = [executor.submit(f, str(path), n) for n in numbers]
    return [future.exception(60) or future.result() for future in futures]


@pytest.mark.parametrize("how", ["adopt", "retry", "version", "version, retry"])
def test_only_what_failed_runs_the_new_code(reopen: Open, tmp_path: Path, how: str) -> None:
    """In another process than the one that met the bug; and after the next change nothing runs at all."""
    path = tmp_path / "ran"
    version = "1" if "version" in how else None
    with reopen() as executor:
        ends = done(executor.with_options(version=version), defined(BUGGY), path, range(6))
        assert list(map(str, ends)) == list("012345")
    path.unlink()
    for n, source in enumerate((MENDED, MENDED_AGAIN)):
        f = defined(source)
        with reopen() as executor:
            view = executor.with_options(version=version)
            if how == "adopt":
                assert executor.adopt(f)
            elif how == "retry":
                assert [future.result(60) for future in executor.retry(f)] == [[1, 3, 5], []][n]
            elif how == "version, retry":
                assert done(view, f, path, [6]) == [6]
                assert [future.result(60) for future in view.retry()] == [[1, 3, 5], []][n]
            assert done(view, f, path, range(7)) == list(range(7))
            assert [row["result"] for row in view.results(f)] == list(range(7))
            assert executor.progress() == (0, 0, 7, 0, 0)
        assert sorted(jobs.noted(path)) == ["new_1", "new_3", "new_5", "new_6"]


def test_adopting_is_for_what_its_name_tells_apart(reopen: Open) -> None:
    """Nothing is taken for another function of its name."""
    executor = reopen(0)
    made = [defined(f"def g(x): return lambda y: x + y + {n}\nf = g(1)") for n in range(2)]
    executor.submit(made[0], 1)
    executor.submit(partial(divmod, 7), 1)
    executor.flush()
    for fn in (made[1], lambda x: x, partial(divmod, 8), [].append):
        with pytest.raises(ValueError, match="version="):
            executor.adopt(fn)
    assert not executor.adopt(defined(MENDED))  # nothing of its name is there


def test_what_waits_runs_the_new_code(reopen: Open, gate: Gate, tmp_path: Path) -> None:
    """Also what waits for another attempt; the futures of the old code give what the new one makes."""
    path = tmp_path / "ran"
    executor = reopen()
    held = executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    waiting = [executor.submit(defined(BUGGY), str(path), n) for n in range(4)]
    executor.flush()
    assert reopen(0).adopt(defined(MENDED))
    gate.open()
    assert [future.result(60) for future in waiting] == [0, 1, 2, 3]
    held.result(60)
    assert sorted(jobs.noted(path)) == [f"new_{n}" for n in range(4)]


def test_changed_code_goes_before_what_waits_of_the_old(
    reopen: Open, gate: Gate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says how many jobs wait, and how to get rid of them; who goes back to the old code has them back."""
    path = tmp_path / "ran"
    with reopen() as executor:
        executor.submit(jobs.hold, gate.path)
        gate.holds(1)
        before = [executor.submit(defined(BUGGY), str(path), n) for n in (0, 2, 4)]
        executor.flush()
        with caplog.at_level(logging.WARNING, "workerbee"):
            other = reopen(0)
            after = [other.submit(defined(MENDED), str(path), n) for n in (0, 2, 4)]
            other.flush()
        [line] = [r.getMessage() for r in caplog.records if "has changed" in r.getMessage()]
        assert "0 stored results" in line
        assert "3 jobs that wait go last (executor.cancel_superseded() cancels them)" in line
        assert "executor.adopt(f)" in line
        gate.open()
        wait(before)
    assert jobs.noted(path) == [f"{code}_{n}" for code in ("new", "old") for n in (0, 2, 4)]
    assert [f.result() for f in after] == [0, 2, 4]


def test_superseded_jobs_are_got_rid_of(reopen: Open, gate: Gate, tmp_path: Path) -> None:
    """They, and no others; and whoever goes back to the old code before that has them in their old place."""
    path = tmp_path / "ran"
    executor = reopen()
    executor.submit(jobs.hold, gate.path)
    gate.holds(1)
    old = [executor.submit(defined(BUGGY), str(path), n) for n in (0, 2)]
    executor.flush()
    new = [reopen(0).submit(defined(MENDED), str(path), n) for n in (0, 2)]
    eventually(lambda: executor.progress().waiting == 4)
    back = reopen(0)
    back.submit(defined(BUGGY), str(path), 4)
    back.flush()
    assert back.cancel_superseded() == 2
    gate.open()
    assert [future.result(60) for future in old] == [0, 2]
    wait(new, 30)
    assert [future.cancelled() for future in new] == [True, True]


def test_nobody_else_says_what_counts_as_what(reopen: Open, shared: Database, tmp_path: Path) -> None:
    """Who may write to the database, and has no key, has no function taken for another, nor its results."""
    path = tmp_path / "ran"
    executor = reopen()
    assert done(executor, defined(BUGGY), path, [0]) == [0]
    mended = executor._functions.describe(defined(MENDED))
    shared.execute(
        f"""INSERT INTO workerbee."function${executor._client.jobset.number}"
                   (digest, identity, name, codec, body, python, mac)
            SELECT %s, identity, name, 'adopted', identity, python, mac
              FROM workerbee."function${executor._client.jobset.number}" """,
        function_records.adoption(mended.identity),
    )
    assert done(reopen(), defined(MENDED), path, [0]) == [0]
    assert jobs.noted(path) == ["old_0", "new_0"]
