"""Large values pass through memory between a client and its own bee: nothing forged is read, and nothing is left."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg2
import pytest
from psycopg2 import sql

from tests.bees import PROJECT, Bee
from tests.servers import Database
from tests.waiting import eventually
from workerbee import JobFailedError, WorkerbeeExecutor, memory, resources, spares
from workerbee.errors import SignatureError, ValueGoneError

N = 1_250_000  # items: 10 MB


@pytest.fixture(scope="module")
def executor(one_database: Database) -> Iterator[WorkerbeeExecutor]:
    with WorkerbeeExecutor(2, dsn=one_database.dsn) as made:
        made.submit(int).result()
        yield made


@pytest.fixture(autouse=True)
def _without_remarks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workerbee.wire.codec.WARN_BYTES", 1 << 40)
        yield


def directory(executor: WorkerbeeExecutor) -> Path:
    found = executor._client._memory
    assert found is not None
    return Path(found.path)


def files(executor: WorkerbeeExecutor) -> list[Path]:
    gc.collect()
    return sorted(directory(executor).iterdir())


def size_of(file: Path) -> int:
    """In bytes; 0 once it is gone, as spare files go whenever their time is over."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def is_empty(executor: WorkerbeeExecutor) -> bool:
    return not files(executor)


def ramp(n: int = N) -> np.ndarray[Any, Any]:
    return np.arange(n, dtype=float)


def fail_at_first(mark: Path) -> None:
    if not mark.exists():
        mark.touch()
        raise JobFailedError("later")


def sum_at_second(place: str, numbers: list[int]) -> int:
    fail_at_first(Path(place, "sum"))
    return sum(numbers)


def ramp_at_second(place: str) -> np.ndarray[Any, Any]:
    fail_at_first(Path(place, "ramp"))
    return ramp()


def add_one(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    array += 1  # which is the job's own
    return array


def wait_for(gate: Path, array: np.ndarray[Any, Any]) -> float:
    gate.with_name(f"held by {os.getpid()}").touch()
    eventually(gate.exists, 60)
    return float(array[-1])


def refuse(array: np.ndarray[Any, Any]) -> None:
    raise ValueError(len(array))


def try_again(tries: Path, array: np.ndarray[Any, Any]) -> float:
    with tries.open("a") as file:
        file.write(".")
    array[-1] += 1
    if tries.stat().st_size < 3:
        raise JobFailedError("not yet")
    return float(array[-1])


def both(value: Any, *, again: Any) -> tuple[Any, Any]:
    return value, again


# Values


VALUES: dict[str, Callable[[], Any]] = {
    "an array": ramp,
    "by columns": lambda: np.asfortranarray(np.ones((500, 400))),
    "every second item": lambda: ramp()[::2],
    "read-only": lambda: np.broadcast_to(np.float64(1), (100_000,)),
    "of records": lambda: np.zeros(10_000, dtype="f8,i4"),
    "of objects": lambda: np.array([None, "x"] * 50_000, dtype=object),
    "small ones beside it": lambda: [ramp(3), ramp(), {"again": ramp(5000)}],
    "bytes": lambda: os.urandom(100_000),
    "a text": lambda: "ü" * 100_000,
    "large texts beside code": lambda: [
        Path(),
        os.urandom(2_000_000),
        "ü" * 70_000,
        bytearray(100_000),
        {1: b"x" * 65_536},
    ],
    "texts that look like code": lambda: [Path(), *(code + bytes(100_000) for code in (pickle.PROTO, pickle.FRAME))],
    "a list": lambda: list(range(30_000)),
    "a dict": lambda: {str(n): n for n in range(10_000)},
    "a bytearray": lambda: bytearray(100_000),
    "nearly large": lambda: bytes(memory.LEAST - 1),
}


@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
def test_values_come_and_go_as_they_are(executor: WorkerbeeExecutor, make: Callable[[], Any]) -> None:
    """As an argument and as a result, whatever they are made of; and no file is left when nobody keeps the future."""
    value = make()
    result, again = executor.submit(both, value, again=value).result()
    np.testing.assert_equal(result, value)
    assert type(result) is type(value)
    assert again is result or isinstance(value, (bytes, str, list, dict))
    del result, again
    eventually(lambda: is_empty(executor))


def test_functions_by_value_come_with_large_arrays(executor: WorkerbeeExecutor) -> None:
    """A pickle within the pickle finds its arrays too."""
    factor = ramp()
    assert np.array_equal(executor.submit(lambda f, x: f(x), lambda x: factor * x, ramp()).result(), ramp() ** 2)


def test_an_array_is_its_owners(executor: WorkerbeeExecutor) -> None:
    """The job changes its own, and the caller the result, in place; nobody else's changes."""
    mine = ramp()
    future = executor.submit(add_one, mine)
    result = future.result()
    result *= 2
    assert np.array_equal(mine, ramp())
    assert np.array_equal(result, 2 * (ramp() + 1))
    assert [row["result"][0] for row in executor.results(add_one)] == [1.0]  # what is stored is as it was
    eventually(lambda: len(files(executor)) == 1)
    del future
    eventually(lambda: is_empty(executor))
    assert result[-1] == 2.0 * N  # it stays, without its file
    assert isinstance(next(executor.results(add_one))["error"], ValueGoneError)


def test_chunks_and_many_at_once(executor: WorkerbeeExecutor) -> None:
    """Maps give what they gave, and leave nothing."""
    arrays = [ramp(10_000) + n for n in range(40)]
    for chunksize in (1, 7):
        results = executor.map(add_one, arrays, chunksize=chunksize)
        assert all(np.array_equal(a, b + 1) for a, b in zip(results, arrays, strict=True))
    eventually(lambda: is_empty(executor))


def test_attempts_find_their_arguments_unchanged(executor: WorkerbeeExecutor, tmp_path: Path) -> None:
    """Whatever the one before has done to its own; also in a new run of what has failed, while the future is kept."""
    assert executor.submit(try_again, tmp_path / "tries", ramp()).result() == N
    failed = executor.submit(refuse, ramp())
    with pytest.raises(ValueError, match=str(N)):
        failed.result()
    [again] = executor.retry(refuse)
    with pytest.raises(ValueError, match=str(N)):
        again.result()
    del failed, again
    eventually(lambda: is_empty(executor))


def keep(array: np.ndarray[Any, Any]) -> float:
    vars(np).setdefault("kept by a job", []).append(array)
    return float(array[0])


def look_again(_: np.ndarray[Any, Any]) -> list[float]:
    return [float(array[0]) for array in vars(np).get("kept by a job", [])]


def test_a_result_goes_on_into_calls_as_it_is(executor: WorkerbeeExecutor, tmp_path: Path) -> None:
    """Calls under way have what it was when they were submitted; what has changed since is stored."""
    result = executor.submit(add_one, ramp()).result()
    eventually(lambda: len(files(executor)) == 1)  # it stays for calls although nobody has the future
    gate = tmp_path / "gate"
    first = [executor.submit(change_after, gate, result) for _ in range(3)]
    assert [file.name[0] for file in files(executor) if size_of(file) > N] == ["r"]
    result[N // 2] = -1.0
    second = executor.submit(change_after, gate, result)
    assert [file.name[0] for file in files(executor) if size_of(file) > N] == ["b", "r"]
    gate.touch()
    was = (ramp() + 1).sum()
    assert [future.result() for future in first] == [was, was, was]
    assert second.result() == was - 1.0 - (N // 2 + 1)
    del result, first, second
    eventually(lambda: is_empty(executor))


def test_a_program_that_ends_with_results_says_nothing(one_database: Database, tmp_path: Path) -> None:
    """Whatever it has kept, without a shutdown."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import numpy
            from workerbee import WorkerbeeExecutor

            if __name__ == "__main__":
                executor = WorkerbeeExecutor(1, dsn={one_database.dsn!r})
                future = executor.submit(numpy.ones, 1_000_000)
                array = future.result()
            """
        )
    )
    ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert ended.stderr == ""


def change_after(gate: Path, array: np.ndarray[Any, Any]) -> float:
    eventually(gate.exists)
    array += 1.0
    return float((array - 1.0).sum())


def test_memory_is_written_again_when_nobody_looks_at_it(
    executor: WorkerbeeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a job keeps of its arguments stays as it is; what none keeps is soon gone, or is the next call's."""
    monkeypatch.setattr(spares.Spares, "rest", lambda *_, **__: None)
    numbers = range(10)
    assert [executor.submit(keep, ramp(200_000) + n).result() for n in numbers] == [*numbers]
    assert [executor.submit(np.sum, ramp(200_000) + 100 + n).result() for n in numbers] == [
        (ramp(200_000) + 100 + n).sum() for n in numbers
    ]
    found = [executor.submit(look_again, ramp(200_000) - 1) for _ in range(8)]
    kept = {n for future in found for n in future.result()}
    assert kept
    assert kept <= {*numbers}
    place = executor._client._memory
    assert place is not None
    assert 1 <= len(place.spares._sizes) <= 10
    monkeypatch.undo()
    eventually(lambda: not place.spares._sizes)


def test_it_is_freed_with_a_cancelled_call(one_database: Database, tmp_path: Path) -> None:
    """What waits behind others, and what runs."""
    gate = tmp_path / "gate"
    with WorkerbeeExecutor(1, dsn=one_database.dsn) as executor:
        futures = [executor.submit(wait_for, gate, ramp(10_000)) for _ in range(4)]
        eventually(futures[0].running)
        assert futures[3].cancel()
        executor.cancel_running(futures)
        del futures
        eventually(lambda: is_empty(executor))


def test_where_there_is_no_room_the_database_takes_it(
    executor: WorkerbeeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is put beyond the bound."""
    monkeypatch.setattr(resources, "free_memory", lambda: 15_000_000 - sum(map(size_of, directory(executor).iterdir())))
    shared = memory.Memory(str(directory(executor)))
    lender = memory.MemoryLender(shared)
    assert [lender.lend("pickle", [bytes(3_000_000)]) is None for _ in range(4)] == [False, False, True, True]
    for left in files(executor):
        left.unlink(missing_ok=True)
    monkeypatch.setattr(memory.Memory, "_room", lambda _: 0.0)
    executor._client._memory._known_until = 0.0  # type: ignore[union-attr]
    assert executor.submit(np.sum, ramp(100_000)).result() == ramp(100_000).sum()
    executor._client._memory._known_until = 0.0  # type: ignore[union-attr]


def test_a_full_memory_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be written whole isn't there at all."""
    shared = memory.Memory.make()
    assert shared is not None

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        assert memory.MemoryLender(shared).lend("pickle", [bytes(100_000)]) is None
    assert not any(Path(shared.path).iterdir())
    shared.close()
    assert not Path(shared.path).exists()


def test_other_bees_leave_such_calls_to_the_local_one(one_database: Database, tmp_path: Path) -> None:
    """They do the others; and nothing fails because a bee elsewhere claimed what it can't read."""
    with (
        WorkerbeeExecutor(1, dsn=one_database.dsn) as client,
        Bee(one_database.dsn, "--busywait", workers=2) as bee,
    ):
        bee.says("serves every jobset")
        futures = [client.submit(np.sum, ramp(20_000) + n) for n in range(20)]
        assert [f.result(60) for f in futures] == [(ramp(20_000) + n).sum() for n in range(20)]
        assert "Traceback" not in bee.output


# Forgeries


def forge(executor: WorkerbeeExecutor, one_database: Database, update: str, **values: Any) -> None:
    """Change rows of the executor's jobset, as somebody may who has the right to write them."""
    number = executor._client.jobset.number
    names = {name: sql.Identifier("workerbee", f"{name}${number}") for name in ("job", "outcome")}
    written = {name: sql.Literal(psycopg2.Binary(value)) for name, value in values.items()}
    one_database.execute(sql.SQL(update).format(**names, **written))


def held_back(executor: WorkerbeeExecutor, gate: Path, n: int = 2) -> list[Future[Any]]:
    """Calls that wait while both runners are busy."""
    for _ in range(2):
        executor.submit(wait_for, gate, ramp(10))
    eventually(lambda: len(list(gate.parent.glob("held by *"))) == 2)
    futures = [executor.submit(np.sum, ramp(50_000) + n) for n in range(n)]
    executor.flush()
    return futures


REFERENCES = {
    "another job's": "UPDATE {job} j SET payload = p.payload FROM {job} p WHERE p.id <> j.id AND p.codec = 'memory'",
    "with its signature": (
        "UPDATE {job} j SET payload = p.payload, mac = p.mac FROM {job} p WHERE p.id <> j.id AND p.codec = 'memory'"
    ),
    "another length": "UPDATE {job} SET payload = set_byte(payload, 93, 7) WHERE codec = 'memory'",
    "a path": "UPDATE {job} SET payload = {path} WHERE codec = 'memory'",
    "no reference": "UPDATE {job} SET payload = '' WHERE codec = 'memory'",
    "unsigned": "UPDATE {job} SET mac = NULL WHERE codec = 'memory'",
}


@pytest.mark.parametrize("update", REFERENCES.values(), ids=REFERENCES)
def test_a_forged_reference_is_refused(executor: WorkerbeeExecutor, one_database: Database, update: str) -> None:
    """Before any file is looked for."""
    bee = psutil.Process(executor._client._bee.process.pid)  # type: ignore[union-attr]
    bee.suspend()  # or it might claim them before they are changed
    futures = [executor.submit(np.sum, ramp(50_000) + n) for n in range(2)]
    executor.flush()
    forge(executor, one_database, update, path=b"/proc/self/../../etc/passwd")
    bee.resume()
    assert {type(f.exception(60)) for f in futures} == {SignatureError}


def hard_link(file: Path) -> None:
    os.link(file, file.parent / "planted too")


def of_another_user(file: Path) -> None:
    os.chown(file, 12345, -1)


def link_to(place: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.unlink()
        file.symlink_to(place)

    return change


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def swap(file: Path) -> None:
    """With another call's of the same length."""
    other = next(one for one in file.parent.glob("a*") if one != file)
    (file.parent / "x").write_bytes(file.read_bytes())
    file.write_bytes(other.read_bytes())
    (file.parent / "x").rename(other)


def change_array(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.write(b"\1")


def change_pickle(file: Path) -> None:
    data = file.read_bytes()
    planted = f"cos\nsystem\n(Vtouch {file.parent}/planted\ntR.".encode()
    file.write_bytes(data[: -len(planted)] + planted)


CHANGES: dict[str, Callable[[Path], None]] = {
    "a device": link_to("/dev/zero"),
    "a symlink": link_to("/etc/passwd"),
    "a pipe": pipe,
    "a hard link": hard_link,
    "gone": Path.unlink,
    "shorter": lambda file: os.truncate(file, 1000),
    "longer": lambda file: os.truncate(file, 1_000_000),
    "another array": change_array,
    "another pickle": change_pickle,
    "another call's": swap,
    **({"another user's": of_another_user} if os.geteuid() == 0 else {}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_file_is_refused(executor: WorkerbeeExecutor, tmp_path: Path, change: Callable[[Path], None]) -> None:
    """And nothing of it is unpickled."""
    futures = held_back(executor, tmp_path / "gate", 1 + (change is swap))
    changed = [file for file in files(executor) if file.name.startswith("a") and size_of(file) > 400_000]
    change(changed[0])
    (tmp_path / "gate").touch()
    errors = [f.exception(60) for f in futures]
    assert {type(error) for error in errors} == {ValueGoneError}, errors
    assert not (directory(executor) / "planted").exists()
    del errors, futures
    for left in files(executor):
        left.unlink(missing_ok=True)


def test_what_is_remembered_stays(one_database: Database, tmp_path: Path) -> None:
    """The same call gets the result although nobody has kept it, and its failure is run again with its arguments."""
    with WorkerbeeExecutor(1, dsn=one_database.dsn) as executor:
        remembering, place = executor.with_options(unique=True), directory(executor)
        for _ in range(3):
            assert remembering.submit(ramp, N).result()[-1] == N - 1
        argument = list(range(5_000))
        with pytest.raises(JobFailedError):
            remembering.with_options(max_n_retry_attempts=1).submit(sum_at_second, str(tmp_path), argument).result()
        assert remembering.submit(sum_at_second, str(tmp_path), argument).result() == sum(argument)
        with pytest.raises(JobFailedError):
            remembering.with_options(max_n_retry_attempts=1).submit(ramp_at_second, str(tmp_path)).result()
        for future in executor.retry(all=True):
            assert future.result()[-1] == N - 1
        del future
        assert remembering.submit(ramp_at_second, str(tmp_path)).result()[-1] == N - 1
        assert executor.progress().added == 3
    assert not place.exists()


def test_a_forged_result_is_refused(one_database: Database, executor: WorkerbeeExecutor, tmp_path: Path) -> None:
    """Nothing unsigned is looked for in memory; other futures aren't troubled."""
    forged, honest = held_back(executor, tmp_path / "gate")
    insert = "INSERT INTO {outcome} (job, run, status, codec, payload) VALUES ({forged}, 1, 'completed', 'memory', '')"
    number = executor._client.jobset.number
    outcome = sql.Identifier("workerbee", f"outcome${number}")
    one_database.execute(sql.SQL(insert).format(outcome=outcome, forged=sql.Literal(forged.job)))  # type: ignore[attr-defined]
    assert isinstance(forged.exception(60), SignatureError)
    (tmp_path / "gate").touch()
    assert honest.result(60) == ramp(50_000).sum() + 50_000


@pytest.mark.parametrize("change", [change_array, change_pickle, Path.unlink])
def test_a_changed_result_is_refused(one_database: Database, change: Callable[[Path], None]) -> None:
    """By the future, and by ``results()``."""
    with WorkerbeeExecutor(1, dsn=one_database.dsn) as executor:
        future = executor.submit(ramp)
        assert future.result()[-1] == N - 1
        change(files(executor)[0])
        assert isinstance(next(executor.results())["error"], ValueGoneError)


def test_a_result_of_another_jobset_is_refused(executor: WorkerbeeExecutor, one_database: Database) -> None:
    """Though this process could read it."""
    with WorkerbeeExecutor(1, dsn=one_database.dsn) as other:
        theirs, ours = other.submit(ramp), executor.submit(ramp)
        assert theirs.result()[-1] == ours.result()[-1]
        [(payload, mac)] = one_database.execute(
            f'SELECT payload, mac FROM workerbee."outcome${other._client.jobset.number}"'
        )
        update = "UPDATE {outcome} SET payload = {payload}, mac = {mac} WHERE codec = 'memory'"
        forge(executor, one_database, update, payload=bytes(payload), mac=bytes(mac))
        assert {type(row["error"]) for row in executor.results(ramp)} == {SignatureError}


def sum_later(place: Path, array: np.ndarray[Any, Any]) -> float:
    (place / "began").touch()
    eventually((place / "go").exists, 60)
    return float(array.sum())


def test_a_file_that_shrinks_under_a_job_is_a_named_error(database: Database, tmp_path: Path) -> None:
    """It costs a runner, and nothing else."""
    with WorkerbeeExecutor(1, dsn=database.dsn) as executor:
        future = executor.submit(sum_later, tmp_path, ramp())
        eventually((tmp_path / "began").exists)
        [file] = [file for file in files(executor) if file.name.startswith("b")]
        os.truncate(file, 0)
        (tmp_path / "go").touch()
        assert type(future.exception(60)) is ValueGoneError
        assert executor.submit(np.sum, ramp()).result() == ramp().sum()


# Ends


PROGRAM = """
import sys, time
import numpy as np
from workerbee import WorkerbeeExecutor

def give(array):
    return array

def stay(array):
    time.sleep(600)

if __name__ == "__main__":
    executor = WorkerbeeExecutor(2, dsn=sys.argv[1])
    kept = executor.submit(give, np.ones(100_000))
    kept.result()
    futures = [executor.submit(stay, np.ones(100_000)) for _ in range(5)]
    while not futures[0].running():
        time.sleep(0.01)
    print(executor._client._memory.path, flush=True)
    {then}
"""


@pytest.mark.parametrize("victims", ["all", "client and bee", "end"])
def test_nothing_is_left_behind(one_database: Database, tmp_path: Path, victims: str) -> None:
    """After the client's end or a kill -9 of it, with its bee, or of everything: then the next client sees to it."""
    script = tmp_path / "program.py"
    then = "time.sleep(600)" if victims != "end" else "executor.cancel_running(); executor.shutdown()"
    script.write_text(textwrap.dedent(PROGRAM).replace("{then}", then))
    command = [sys.executable, str(script), one_database.dsn]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as program:
        assert program.stdout is not None
        try:
            said = iter(program.stdout.readline, "")
            place = next(line.strip() for line in said if line.startswith("/"))
            if victims != "end":
                assert any(Path(place).iterdir())
                family = psutil.Process(program.pid).children(recursive=True)
                for process in family if victims == "all" else family[:1]:
                    process.send_signal(signal.SIGKILL)
                program.kill()
            program.stdout.read()
        finally:
            program.kill()
    if victims == "all":  # which another test's client may have done by now
        with WorkerbeeExecutor(1, dsn=one_database.dsn):
            assert not Path(place).exists()
    eventually(lambda: not Path(place).exists())


def test_what_killed_runners_have_begun_goes(executor: WorkerbeeExecutor) -> None:
    """The files of results that nobody waits for, after a while."""
    begun = directory(executor) / f"r99999-{'0' * 32}"
    begun.touch()
    eventually(lambda: not begun.exists())


def test_a_forked_child_frees_nothing(executor: WorkerbeeExecutor) -> None:
    """What it has inherited is its parent's."""
    future = executor.submit(ramp)
    future.result()
    pid = os.fork()
    if not pid:
        try:
            del future
            gc.collect()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert [file.name[0] for file in files(executor) if file.name[0] != "s"] == ["r"]


def test_many_threads_put_at_once(executor: WorkerbeeExecutor) -> None:
    """Each has its own file."""
    sums: list[float] = []
    threads = [
        threading.Thread(target=lambda n=n: sums.append(executor.submit(np.sum, ramp(20_000) * n).result()))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums) == [ramp(20_000).sum() * n for n in range(8)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_arrays_where_there_is_little_memory_for_files(database: Database, tmp_path: Path) -> None:
    """As in a container: two hundred megabytes go through, and nothing is left."""
    script = f"""
        import os, tempfile
        import numpy as np
        from workerbee import WorkerbeeExecutor

        def doubled(array):
            array *= 2
            return array

        if __name__ == "__main__":
            with WorkerbeeExecutor(2, dsn={database.dsn!r}) as executor:
                calls = [executor.submit(doubled, np.full({N}, n)) for n in range(20)]
                assert [int(call.result()[0]) for call in calls] == [2 * n for n in range(20)]
                del calls
            left = os.listdir("/dev/shm") + os.listdir(tempfile.gettempdir())
            assert not [name for name in left if name.startswith("workerbee-")], left
    """
    run_where_memory_is("size=64m", script, tmp_path)


def run_where_memory_is(options: str, script: str, tmp_path: Path) -> None:
    """Run a script where another tmpfs, with these options, is in the place of /dev/shm."""
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    (tmp_path / "temporary").mkdir()
    mounted = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o {options} tmpfs /dev/shm || exit 77; exec "$@"', "sh"]
    ran = subprocess.run(
        [*mounted, sys.executable, str(tmp_path / "script.py")],
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if ran.returncode == 77:
        pytest.skip("no mounts here")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_memory_that_is_full_has_values_go_through_the_database(database: Database, tmp_path: Path) -> None:
    """No file can be made there any more: arguments, what calls share and results arrive all the same."""
    script = f"""
        import os, tempfile
        from functools import partial
        import numpy as np
        from workerbee import WorkerbeeExecutor

        def times(factor, array):
            return array * factor

        if __name__ == "__main__":
            array = np.full({N}, 3.0)
            with WorkerbeeExecutor(2, dsn={database.dsn!r}) as executor:
                assert executor.submit(times, 2, array).result()[0] == 6
                number = 0
                while True:
                    try:
                        open(f"/dev/shm/full-{{number}}", "x").close()
                    except OSError:
                        break
                    number += 1
                assert number < 1000
                calls = [executor.submit(times, n, array) for n in range(6)]
                calls += [executor.submit(partial(times, array=array), n) for n in range(6)]
                assert [float(call.result(60)[-1]) for call in calls] == [3.0 * n for n in [*range(6), *range(6)]]
                del calls
            left = os.listdir("/dev/shm") + os.listdir(tempfile.gettempdir())
            assert not [name for name in left if name.startswith("workerbee-")], left
    """
    run_where_memory_is("size=1100m,nr_inodes=200", script, tmp_path)
