"""Large values of durable jobsets in files, with real bees: lost and forged ones, kills, places that aren't there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from psycopg2 import sql

import workerbee
from tests.bees import PROJECT, Bee
from tests.servers import Database
from tests.waiting import eventually
from workerbee import JobSet, WorkerbeeExecutor, reading
from workerbee.errors import FunctionUnavailable, LargeValuesError, LostValueError, SignatureError
from workerbee.store import Catalogue, Connection, queries

N = 20_000  # items of 8 bytes


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "place"
    made.mkdir()
    return made


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return "".join(c if c.isalnum() else "_" for c in request.node.name.lower())[:48]


@pytest.fixture
def opened(one_database: Database, place: Path, name: str) -> Callable[..., WorkerbeeExecutor]:
    """Opens the test's jobset."""

    def open_(workers: int = 1, **options: Any) -> WorkerbeeExecutor:
        options = {"large_values": f"file://{place}", "large_values_from": 10_000} | options
        return WorkerbeeExecutor(workers, jobset_id=name, dsn=one_database.dsn, **options)

    return open_


def files(place: Path, pattern: str = "[ar.]*") -> list[Path]:
    return sorted(place.glob(f"workerbee-*/{pattern}"))


def command(database: Database, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "workerbee", *map(str, arguments), "--dsn", database.dsn]
    return subprocess.run(line, capture_output=True, text=True, cwd=PROJECT, check=False)


def ramp(notes: str, n: int = N) -> np.ndarray[Any, Any]:
    with Path(notes).open("a") as file:
        file.write("x")
    return np.arange(n, dtype=float)


def total(array: np.ndarray[Any, Any], n: int) -> float:
    array += n  # which is the job's own
    return float(array.sum())


def wait_for(gate: str, n: int = N) -> np.ndarray[Any, Any]:
    Path(gate + ".begun").touch()
    eventually(Path(gate).exists, 60)
    return np.ones(n)


def test_values_are_files(
    opened: Callable[..., WorkerbeeExecutor], one_database: Database, place: Path, name: str, tmp_path: Path
) -> None:
    """Arguments and results, read by any process; the row is a reference that people can read; a drop deletes them."""
    notes = str(tmp_path / "notes")
    with opened() as executor:
        array = np.ones(N)
        assert [f.result(60) for f in [executor.submit(total, array, n) for n in range(5)]] == [
            N + N * n for n in range(5)
        ]
        assert len(files(place)) == 1
        assert executor.submit(ramp, notes).result(60)[-1] == N - 1
        assert executor.submit(dict, text="x" * 20_000).result(60) == {"text": "x" * 20_000}
    results = files(place, "r*")
    assert {path.stat().st_size > 10_000 for path in results} == {True}
    [(output, status)] = one_database.execute(f"SELECT output_data, status FROM workerbee.{name} WHERE id = 6")
    assert (output["codec"], status) == ("pickle", "completed")
    assert Path(output["folder"].removeprefix("file://"), output["files"][0]["file"]) in results
    with workerbee.open(name, dsn=one_database.dsn) as handle:
        [row] = handle.results("ramp")
        assert row["result"][-1] == N - 1
        [size] = [
            json.loads(line) for line in command(one_database, "status", name, "--size", "--json").stdout.splitlines()
        ]
        assert size["file_bytes"] > sum(path.stat().st_size for path in results)
        shown = command(one_database, "jobs", "show", name, 6)
        assert str(place) in shown.stdout
        assert "lost" not in shown.stdout
        assert handle.drop()
    assert list(place.iterdir()) == []


def plus(array: np.ndarray[Any, Any], n: int) -> float:
    return float(array[-1]) + n


def test_an_array_of_a_function_is_stored_once_in_the_database(
    opened: Callable[..., WorkerbeeExecutor], one_database: Database, place: Path
) -> None:
    """Many calls of a partial, or of closures, make no file each; as an argument it is one file; a drop deletes all."""
    array = np.arange(150_000.0)
    with opened() as executor:
        assert list(executor.map(partial(plus, array), range(3))) == [149_999.0 + n for n in range(3)]
        closures = [lambda n=n: plus(array, n) for n in range(3)]
        assert [f.result(60) for f in map(executor.submit, closures)] == [149_999.0 + n for n in range(3)]
        part = sql.Identifier("workerbee", f"part${executor._client.jobset.number}")
        [stored] = one_database.execute(sql.SQL("SELECT count(DISTINCT token), min(job) FROM {}").format(part))
        assert (stored, files(place)) == ((1, 0), [])
        assert list(executor.map(plus, [array] * 3, range(3))) == [149_999.0 + n for n in range(3)]
        assert len(files(place)) == 1
        executor.drop()
    assert list(place.iterdir()) == []


def test_a_drop_that_was_killed_halfway_is_ended_by_the_next_executor(
    opened: Callable[..., WorkerbeeExecutor], one_database: Database, place: Path, name: str, tmp_path: Path
) -> None:
    """As the files are removed: nobody sees the jobset any more, and what is left of it goes."""
    with opened() as executor:
        executor.submit(ramp, str(tmp_path / "notes")).result(60)
        executor.submit(ramp, str(tmp_path / "notes"), 2 * N).result(60)
    program = f"""
        import os, signal
        from workerbee import files, cli
        remove = files.Local.remove
        def killed(self, name):
            remove(self, name)
            os.kill(os.getpid(), signal.SIGKILL)
        files.Local.remove = killed
        cli.main(["drop", {name!r}, "--yes", "--dsn", {one_database.dsn!r}])
    """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=PROJECT, check=False, capture_output=True
    )
    assert killed.returncode == -9, killed
    assert len(files(place)) == 1
    WorkerbeeExecutor(0, dsn=one_database.dsn).shutdown()
    assert list(place.iterdir()) == []


def test_files_that_a_drop_leaves_are_named(
    opened: Callable[..., WorkerbeeExecutor], one_database: Database, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of a drop that was not finished, where the one who ends it can't see their place."""
    with opened() as executor:
        jobset = executor._client.jobset
    with closing(Connection(one_database.dsn)) as connection:
        Catalogue(connection).mark_dropped(jobset)
    place.rename(place.with_name("elsewhere"))
    WorkerbeeExecutor(0, dsn=one_database.dsn).shutdown()
    assert f"{jobset.name} was dropped, but its large values are left: " in caplog.text
    assert str(place) in caplog.text


@pytest.mark.parametrize("missing", [("function",), queries.TABLES], ids=["the table of places", "all of them"])
@pytest.mark.parametrize("by_command", [True, False], ids=["command", "sweep"])
def test_a_drop_is_ended_although_somebody_has_dropped_tables(
    opened: Callable[..., WorkerbeeExecutor],
    one_database: Database,
    caplog: pytest.LogCaptureFixture,
    missing: tuple[str, ...],
    *,
    by_command: bool,
) -> None:
    """By hand: neither the command nor who opens an executor then is stopped by that, and what may be left is said."""
    with opened() as executor:
        jobset = executor._client.jobset
    gone = sql.SQL(", ").join(sql.Identifier("workerbee", f"{table}${jobset.number}") for table in missing)
    one_database.execute(sql.SQL("DROP TABLE {} CASCADE").format(gone))
    if by_command:
        dropped = command(one_database, "drop", jobset.id, "--yes")
        assert dropped.stdout == f"{jobset.id} is dropped\n", dropped.stderr
        said = dropped.stderr
    else:
        with closing(Connection(one_database.dsn)) as connection:
            Catalogue(connection).mark_dropped(jobset)
        WorkerbeeExecutor(0, dsn=one_database.dsn).shutdown()
        said = caplog.text
    assert "whether large values of it are left in files isn't known" in said
    left = f"SELECT FROM pg_class WHERE relname ~ '\\${jobset.number}$' OR relname = '{jobset.id}'"
    assert one_database.execute(left) == []
    with reading.opened(one_database.dsn) as reader:
        assert reader.jobsets(1, jobset_id=jobset.id) == []


def spoilt(how: str, file: Path) -> None:
    if how == "gone":
        file.unlink()
    elif how == "shorter":
        os.truncate(file, file.stat().st_size - 1)
    else:
        file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("how", ["gone", "shorter", "changed"])
def test_a_lost_result_is_computed_again(
    opened: Callable[..., WorkerbeeExecutor],
    one_database: Database,
    place: Path,
    name: str,
    tmp_path: Path,
    how: str,
) -> None:
    """It is a named error of its job, wherever it is looked for; and a retry, or the same call, runs it anew."""
    notes = tmp_path / "notes"
    with opened() as executor:
        first, second = executor.submit(ramp, str(notes)), executor.submit(ramp, str(notes), 2 * N)
        assert first.result(60)[-1] == N - 1
        assert second.result(60)[-1] == 2 * N - 1
        job = first.job
    [file] = files(place, f"r{job}-1-*")
    spoilt(how, file)
    shown = command(one_database, "jobs", "show", name, job)
    assert "completed" in shown.stdout
    assert "a large value is lost" in shown.stdout
    with workerbee.open(name, dsn=one_database.dsn) as handle:
        assert handle.status().jobs.failed == 0  # looking changes nothing
        with opened() as executor:
            rows = list(executor.results(ramp, on_error="return"))
            assert [type(row.get("error")) for row in rows] == [LostValueError, type(None)]
            assert [row["status"] for row in rows] == ["failed", "completed"]
            assert [row["job_id"] for row in executor.results(ramp)] == [second.job]
            assert (handle.status().jobs.failed, handle.status().jobs.completed) == (1, 1)
            assert "LostValueError" in command(one_database, "jobs", "show", name, job).stdout
            assert executor.submit(ramp, str(notes)).result(60)[-1] == N - 1
            assert (len(notes.read_text()), handle.status().jobs.completed) == (3, 2)
            [file] = files(place, f"r{job}-3-*")
            spoilt(how, file)
            retried = command(one_database, "retry", name, job)
            assert "1 jobs" in retried.stdout, retried
            assert handle.wait(60).jobs.completed == 2
            assert executor.submit(ramp, str(notes)).result(60)[-1] == N - 1
            assert len(notes.read_text()) == 4
        kinds = [event.kind for event in life(one_database, name, job) if event.kind != "opened"]
        assert kinds == ["completed", "failed", "completed", "failed", "completed"]
        handle.drop()


def life(database: Database, name: str, job: int) -> list[Any]:
    with reading.opened(database.dsn) as reader:
        [row] = reader.jobsets(1, jobset_id=name)
        return [event for event in reader.of(row.jobset).life(job) if event.kind != "error"]


def side(gates: str, n: int) -> np.ndarray[Any, Any]:
    """Give an array that says which bee has made it; the call with 3 goes on when that bee is told to."""
    mine = os.environ["SIDE"]
    if n == 3:
        Path(gates, f"{mine}.begun").touch()
        eventually(Path(gates, mine).exists, 60)
    return np.full(N, float(mine))


def test_of_two_copies_one_file_stays(
    opened: Callable[..., WorkerbeeExecutor], one_database: Database, place: Path, name: str, tmp_path: Path
) -> None:
    """A straggler's, which ended first; that of its copy, whose bee hung with its file written, is swept."""

    def bee(number: int) -> Bee:
        return Bee(one_database.dsn, name, "--busywait", environment={"SIDE": str(number)})

    with opened(0) as executor, bee(1):
        for n in range(3):
            executor.submit(side, str(tmp_path), n).result(60)
        future = executor.submit(side, str(tmp_path), 3)
        eventually((tmp_path / "1.begun").exists, 60)
        with bee(2) as copying:
            eventually((tmp_path / "2.begun").exists, 60)
            copying.process.send_signal(signal.SIGSTOP)  # its runner goes on
            (tmp_path / "2").touch()
            [loser] = eventually(lambda: files(place, f"r{future.job}-*"), 60)
            (tmp_path / "1").touch()
            assert future.result(60)[0] == 1
        assert executor.events().speculative == 1
    winner, *_ = (file for file in files(place, f"r{future.job}-*") if file != loser)
    for file in files(place):
        os.utime(file, (0, 0))
    os.utime(winner.with_name("jobset.json"), (0, 0))
    with opened(0) as executor:
        assert files(place, f"r{future.job}-*") == [winner]
        assert executor.submit(side, str(tmp_path), 3).result(60)[0] == 1
        executor.drop()


def test_the_same_call_isnt_stuck_on_a_lost_result(
    opened: Callable[..., WorkerbeeExecutor], place: Path, tmp_path: Path
) -> None:
    """If the file isn't there it is run at once; if it was changed its future says so, and the next time it is run."""
    notes = tmp_path / "notes"
    with opened() as executor:
        executor.submit(ramp, str(notes)).result(60)
        files(place, "r*")[0].unlink()
        assert executor.submit(ramp, str(notes)).result(60)[-1] == N - 1
        assert len(notes.read_text()) == 2
        spoilt("changed", files(place, "r*")[0])
        with pytest.raises(LostValueError, match="was changed"):
            executor.submit(ramp, str(notes)).result(60)
        assert executor.submit(ramp, str(notes)).result(60)[-1] == N - 1
        assert (len(notes.read_text()), executor.progress().failed) == (3, 0)
        files(place, "r*")[-1].unlink()
        [future] = executor.retry()
        assert future.result(60)[-1] == N - 1
        executor.drop()


def test_a_lost_argument_comes_again_with_its_call(
    opened: Callable[..., WorkerbeeExecutor], place: Path, tmp_path: Path
) -> None:
    """Its job fails with the name of the file; submitted again, the call brings it."""
    text = "x" * 20_000
    with opened(0) as executor:
        future = executor.submit(len, text)
        executor.flush()
        files(place, "a*")[0].unlink()
        with opened() as other:
            with pytest.raises(LostValueError, match="isn't there any more"):
                future.result(60)
            assert other.submit(len, text).result(60) == 20_000
            other.drop()


def test_forged_rows_lead_nowhere(
    opened: Callable[..., WorkerbeeExecutor], one_database: Database, place: Path, name: str, tmp_path: Path
) -> None:
    """Whoever can only write rows has nothing opened and nothing deleted: neither other paths, nor others' files."""
    notes = str(tmp_path / "notes")
    with opened() as executor:
        for n in range(2):
            executor.submit(ramp, notes, N + n).result(60)
        number = executor._client.jobset.number
    outcome, function = (sql.Identifier("workerbee", f"{table}${number}") for table in ("outcome", "function"))
    planted = tmp_path / "workerbee-00000000000000000000000000000000"
    planted.mkdir()
    os.mkfifo(planted / f"r1-1-{'0' * 64}")  # whoever opened it would wait for ever, or see no file
    piece = {"file": f"r1-1-{'0' * 64}", "size": 5, "sha256": "0" * 64}
    forged = json.dumps({"folder": f"file://{planted}", "codec": "pickle", "files": [piece]})
    for change, values in (
        ("UPDATE {} SET output = %s::json WHERE job = 1", [forged]),
        ("UPDATE {} SET output = %s::json, mac = NULL WHERE job = 1", [forged]),
        ("UPDATE {} o SET output = p.output, mac = p.mac FROM {} p WHERE o.job = 1 AND p.job = 2", []),
    ):
        one_database.execute(sql.SQL(change).format(*[outcome] * change.count("{}")), *values)
        with opened() as executor:
            with pytest.raises(SignatureError):
                executor.submit(ramp, notes, N).result(60)
            errors = [type(row["error"]) for row in executor.results(ramp) if "error" in row]
            assert errors == [SignatureError]
            assert executor.progress().failed == 0
        assert "signature" in command(one_database, "jobs", "show", name, 1).stdout
    elsewhere = tmp_path / "elsewhere"
    [folder] = place.iterdir()
    (elsewhere / folder.name).mkdir(parents=True)
    (elsewhere / folder.name / piece["file"]).touch()
    one_database.execute(
        sql.SQL("UPDATE {} SET body = %s WHERE codec = 'place'").format(function), f"file://{elsewhere}".encode()
    )
    dropped = command(one_database, "drop", name, "--yes")
    assert "is dropped" in dropped.stdout
    assert "isn't signed" in dropped.stderr
    assert (elsewhere / folder.name / piece["file"]).exists()
    assert files(place)


def test_jobsets_in_one_place_keep_apart(
    opened: Callable[..., WorkerbeeExecutor], one_database: Database, place: Path, tmp_path: Path
) -> None:
    """A row and file of one are no value of another; and a drop of one leaves the other's."""
    notes = str(tmp_path / "notes")
    names = "apart_one", "apart_two"
    numbers = []
    for one in names:
        with WorkerbeeExecutor(
            1, jobset_id=one, dsn=one_database.dsn, large_values=f"file://{place}", large_values_from=1000
        ) as executor:
            executor.submit(ramp, notes).result(60)
            numbers.append(executor._client.jobset.number)
    tables = [sql.Identifier("workerbee", f"outcome${number}") for number in numbers]
    swap = "UPDATE {} o SET output = p.output, mac = p.mac FROM {} p WHERE o.job = p.job"
    first, second = (workerbee.open(one, dsn=one_database.dsn) for one in names)
    with first, second:
        [row] = second.results("ramp")
        assert row["result"][-1] == N - 1
        one_database.execute(sql.SQL(swap).format(*tables))
        assert [type(row["error"]) for row in first.results("ramp")] == [SignatureError]
        assert first.drop()
        assert [row["result"][-1] for row in second.results("ramp")] == [N - 1]
        assert second.drop()
    assert list(place.iterdir()) == []


SLOW = """
    import os, sys, time
    from pathlib import Path
    from workerbee import files

    write = files.Local.write

    def slowly(self, name, parts):
        def paused():
            for part in parts:
                yield memoryview(part)[:9000]
                if len(part) > 9000:
                    Path(os.environ["GATE"]).touch()
                    time.sleep(600)
        write(self, name, paused())

    files.Local.write = slowly
"""


def test_a_bee_that_is_killed_while_it_writes_has_stored_nothing(
    opened: Callable[..., WorkerbeeExecutor], one_database: Database, place: Path, name: str, tmp_path: Path
) -> None:
    """The job is run again elsewhere; what was half written is no value, and is swept a day later."""
    site, gate = tmp_path / "site", tmp_path / "gate"
    site.mkdir()
    (site / "sitecustomize.py").write_text(textwrap.dedent(SLOW))
    environment = {"PYTHONPATH": f"{site}{os.pathsep}{PROJECT}", "GATE": str(gate)}
    with opened(0) as executor:
        future = executor.submit(ramp, str(tmp_path / "notes"))
        executor.flush()
        path = os.environ.get("PYTHONPATH")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", f"{site}{os.pathsep}{path or ''}")
            with Bee(one_database.dsn, name, environment={"GATE": environment["GATE"]}) as bee:
                eventually(gate.exists, 60)
                bee.kill()
        [draft] = files(place)
        assert draft.name.startswith(".")
        with Bee(one_database.dsn, name):
            assert future.result(60)[-1] == N - 1
    for path_ in (draft, draft.with_name("jobset.json")):
        os.utime(path_, (time.time() - 200_000,) * 2)
    with opened(0) as executor:
        assert [file.name[:4] for file in files(place)] == ["r1-1"]
        executor.drop()


def test_a_drop_leaves_nothing_of_what_runs(
    opened: Callable[..., WorkerbeeExecutor], one_database: Database, place: Path, name: str, tmp_path: Path
) -> None:
    """A job that ends after its jobset was dropped stores nothing; other ways to drop delete files too."""
    gate = tmp_path / "gate"
    with opened(0) as executor, Bee(one_database.dsn, name) as bee:
        executor.submit(wait_for, str(gate))
        executor.flush()
        eventually(Path(f"{gate}.begun").exists, 60)
        dropped = command(one_database, "drop", name, "--yes")
        assert dropped.returncode == 0, dropped
        gate.touch()
        assert bee.process.wait(60) == 70
    assert list(place.iterdir()) == []
    with opened() as executor:
        executor.submit(ramp, str(tmp_path / "notes")).result(60)
    assert files(place)
    old = command(one_database, "drop", "--older-than", "0min", "--yes")
    assert f"{name} is dropped" in old.stdout, old
    assert list(place.iterdir()) == []


def test_a_bee_that_sees_another_place_leaves_the_jobs_to_others(
    opened: Callable[..., WorkerbeeExecutor], one_database: Database, place: Path, name: str, tmp_path: Path
) -> None:
    """It says what it lacks, and writes nothing to where the place isn't mounted."""
    with opened(0) as executor:
        future = executor.submit(ramp, str(tmp_path / "notes"))
        executor.flush()
        [folder] = place.iterdir()
        folder.rename(tmp_path / "mounted")
        with Bee(one_database.dsn, name) as bee:
            bee.says("have it mounted here")
            assert bee.process.wait(60) == 70
        assert list(place.iterdir()) == []
        (tmp_path / "mounted").rename(folder)
        with Bee(one_database.dsn, name):
            assert future.result(60)[-1] == N - 1
        executor.drop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_place_that_is_full_or_read_only(
    opened: Callable[..., WorkerbeeExecutor], one_database: Database, place: Path, name: str, tmp_path: Path
) -> None:
    """The caller is told in his stack, a job fails by name and can be retried; and nothing is half done."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)], check=False).returncode != 0:
        pytest.skip("no mounts here")
    try:
        with opened() as executor:
            assert executor.submit(ramp, str(tmp_path / "notes")).result(60)[-1] == N - 1
            before = files(place)
            with pytest.raises(LargeValuesError, match="No space left"):
                executor.submit(total, np.ones(100_000), 1)
            with pytest.raises(LargeValuesError, match=r"No space left .*with room in it"):
                executor.submit(ramp, str(tmp_path / "notes"), 100_000).result(60)
            assert files(place) == before
            assert executor.progress()[-3:] == (1, 1, 0)
            subprocess.run(["mount", "-o", "remount,size=9m", str(place)], check=True)
            [future] = executor.retry()
            assert future.result(60)[-1] == 99_999
            subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
            with pytest.raises(LargeValuesError, match="Read-only file system"):
                executor.submit(total, np.ones(100_000), 2)
        with pytest.raises(LargeValuesError, match="Read-only"):
            opened()
        doctor = command(one_database, "doctor")
        assert f"large values: {name}: large values can't be stored" in doctor.stdout
        left = command(one_database, "drop", name, "--yes")
        assert "its large values are left: large values can't" in left.stderr
        assert "Read-only" in left.stderr
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_the_place_is_for_durable_jobsets(one_database: Database, place: Path) -> None:
    """Anything else is refused in the caller's stack, before anything is made."""
    with pytest.raises(ValueError, match="jobset_id"):
        WorkerbeeExecutor(0, dsn=one_database.dsn, large_values=f"file://{place}")
    with pytest.raises(ValueError, match="no URL"):
        WorkerbeeExecutor(0, dsn=one_database.dsn, jobset_id="nothing", large_values=str(place))
    with pytest.raises(LargeValuesError, match="No such file"):
        WorkerbeeExecutor(0, dsn=one_database.dsn, jobset_id="nothing", large_values=f"file://{place}/not/there")
    assert list(place.iterdir()) == []


def test_a_jobset_of_inputs(one_database: Database, place: Path, name: str) -> None:
    """Inputs and results of a `JobSet` are files too, run by this process or another; others leave them to these."""
    options = {"large_values": f"file://{place}", "large_values_from": 1000}
    parts = dict(part.split("=", 1) for part in one_database.dsn.split() if "=" in part)
    server = {key: parts[key] for key in ("host", "port", "user", "password", "dbname") if key in parts}
    jobset = JobSet(name, **server, **options)  # type: ignore[arg-type]
    jobset.setup_jobset()
    jobset.add_jobs([{"id": n, "text": "x" * (n * 3000)} for n in range(3)])
    assert len(files(place, "a*")) == 2
    plain = JobSet(name, **server)  # type: ignore[arg-type]
    with pytest.raises(FunctionUnavailable, match="of a JobSet with large_values"):
        plain.run(lambda job: job["text"])
    jobset.run(lambda job: job["text"])
    assert [row.get("result", row) for row in jobset.results(all=True)] == ["", "x" * 3000, "x" * 6000]
    assert len(files(place, "r*")) == 2
    files(place, "r2-*")[0].unlink()
    assert jobset.retry([2]) == 1
    jobset.run(lambda job: job["text"].upper())
    assert [row["result"] for row in jobset.results(all=True)] == ["", "X" * 3000, "x" * 6000]
    with pytest.raises(LargeValuesError):
        JobSet(name, **server, **(options | {"large_values": f"file://{place}/no"})).run(len)  # type: ignore[arg-type]
    assert jobset.drop()
    assert list(place.iterdir()) == []
    for one in (jobset, plain):
        one.close()
