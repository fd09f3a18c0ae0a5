"""Values in files in memory: what isn't as its signed reference says is refused, and what nobody needs is gone."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import shutil
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit import forgeries
from tests.unit.forgeries import Forgery, code, flipped, in_its_place, links_to
from tests.waiting import eventually
from workerbee import directory, mapped, memory, resources, spares
from workerbee.errors import ValueGoneError
from workerbee.memory import Memory
from workerbee.reference import Reference
from workerbee.wire import codec
from workerbee.wire.values import Steady

TEXT = b"t" * 70_000
ARRAY = bytearray(b"a" * 2_000_000)


@pytest.fixture
def shared() -> Iterator[Memory]:
    made = Memory.make()
    assert made is not None
    yield made
    made.close()
    left = list(Path(made.path).iterdir()) if Path(made.path).exists() else []
    shutil.rmtree(made.path, ignore_errors=True)  # what a planted pickle has made, where it was executed
    assert left == []


def lent(shared: Memory, value: object, job: int = 0) -> Reference:
    encoded = codec.encode(value, "it", lender=shared.lender(job))
    assert encoded.codec == memory.MEMORY
    return Reference.parse(encoded.data)


def value_of(reference: Reference) -> object:
    return codec.decode(memory.MEMORY, bytes(reference))


def file_of(shared: Memory, reference: Reference) -> Path:
    return Path(shared.path, reference.name)


def arrays(shared: Memory) -> list[Path]:
    """The files of arrays that calls share."""
    return list(Path(shared.path).glob("b*"))


def another_pickle_behind_the_array(file: Path, mark: Path) -> None:
    data, planted = file.read_bytes(), code(mark)
    at = data.index(pickle.PROTO + b"\x05")
    file.write_bytes(data[:at] + planted + data[at + len(planted) :])


FORGERIES: dict[str, Forgery] = forgeries.FORGERIES | {
    "the last byte of the array": flipped(len(ARRAY) - 1),
    "a pickle in the place of the pickle": another_pickle_behind_the_array,
    "a symlink to itself, moved": in_its_place(lambda file, moved: file.symlink_to(moved)),
    "a symlink upwards": links_to("../../../etc/passwd"),
    "a hard link": os.link,
}
if os.geteuid() == 0:
    FORGERIES |= {
        "another user's": lambda file, _: os.chown(file, 12345, -1),
        "a real device": in_its_place(lambda file, _: os.mknod(file, 0o20600, os.makedev(1, 5))),
    }
OF_ARRAYS = {name: forge for name, forge in FORGERIES.items() if forge is not another_pickle_behind_the_array}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_file_is_refused(shared: Memory, forge: Forgery) -> None:
    """At once, with nothing of it unpickled."""
    reference = lent(shared, [Path(), pickle.PickleBuffer(ARRAY), "x" * 300, TEXT], job=7)
    is_refused(shared, reference, file_of(shared, reference), forge)


@pytest.mark.parametrize("forge", OF_ARRAYS.values(), ids=OF_ARRAYS)
def test_a_forged_file_of_a_shared_array_is_refused(shared: Memory, forge: Forgery) -> None:
    """Also of one that was looked at before."""
    reference = lent(shared, [Path(), pickle.PickleBuffer(ARRAY), "x" * 300, TEXT])
    kept = shared.lent(bytes(reference))
    [file] = arrays(shared)
    is_refused(shared, reference, file, forge)
    del kept


def is_refused(shared: Memory, reference: Reference, file: Path, forge: Forgery) -> None:
    assert value_of(reference)[1::2] == [ARRAY, TEXT]  # type: ignore[index]
    mark, later = Path(shared.path, "mark"), Path(shared.path, "later")
    eventually(lambda: later.write_bytes(b"") or later.stat().st_mtime_ns > file.stat().st_mtime_ns)
    forge(file, mark)
    with pytest.raises(ValueGoneError):
        value_of(reference)
    assert not mark.is_dir()
    for left in Path(shared.path).iterdir():
        left.rmdir() if left.is_dir() else left.unlink()


def test_the_texts_of_a_pickle_are_looked_at_too(shared: Memory) -> None:
    """They aren't executed, and stand beside what is."""
    reference = lent(shared, [Path(), TEXT])
    file = file_of(shared, reference)
    file.write_bytes(file.read_bytes().replace(b"t" * 1000, b"T" * 1000, 1))
    with pytest.raises(ValueGoneError):
        value_of(reference)


def test_files_are_not_swapped(shared: Memory) -> None:
    """Neither in one directory nor between two, though the values are of one length."""
    first, second = lent(shared, bytes(9000)), lent(shared, bytes(9000 - 1) + b"x")
    other = Memory.make()
    assert other is not None
    for reference in (first._replace(directory=lent(other, bytes(9000)).directory), first._replace(job=7)):
        with pytest.raises(ValueGoneError):
            value_of(reference)
    other.close()
    one, two = file_of(shared, first), file_of(shared, second)
    one.rename(one.with_name("x"))
    two.rename(one)
    one.with_name("x").rename(two)
    for reference in (first, second):
        with pytest.raises(ValueGoneError):
            value_of(reference)


def test_a_directory_that_was_swapped_is_not_entered(shared: Memory, tmp_path: Path) -> None:
    """Nobody is led elsewhere by a link in its place."""
    reference = lent(shared, bytes(9000))
    moved = tmp_path / "moved"
    subprocess.run(["mv", shared.path, str(moved)], check=True)
    Path(shared.path).symlink_to(moved)
    try:
        with pytest.raises(ValueGoneError):
            value_of(reference)
        assert memory.MemoryLender(shared).lend("pickle", [bytes(9000)]) is None
    finally:
        Path(shared.path).unlink()
        subprocess.run(["mv", str(moved), shared.path], check=True)


@pytest.mark.parametrize("data", [b"", b"/etc/passwd", b"../" * 40, bytes(81), bytes(89), b"\xff" * 90])
def test_what_is_no_reference_leads_nowhere(data: bytes) -> None:
    """Whatever is in a row."""
    with pytest.raises(ValueGoneError):
        memory.recall(data)


def test_what_is_executed_is_what_was_looked_at(shared: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes after that changes nothing."""
    reference = lent(shared, [Path(), pickle.PickleBuffer(ARRAY), "x" * 300], job=7)
    file, mark = file_of(shared, reference), Path(shared.path, "mark")
    looked_at = memory._digest_of

    def look(parts: list[memoryview | bytes]) -> bytes:
        digest = looked_at(parts)
        another_pickle_behind_the_array(file, mark)
        return digest

    monkeypatch.setattr(memory, "_digest_of", look)
    assert value_of(reference)[0] == Path()  # type: ignore[index]
    assert not mark.exists()


def test_freed_memory_is_written_again_unless_somebody_has_it(shared: Memory) -> None:
    """As a lease tells: whoever has a value keeps it as it is."""
    kept = lent(shared, pickle.PickleBuffer(ARRAY))
    value = value_of(kept)
    free(shared, kept)
    assert list(Path(shared.path).iterdir()) == []
    dropped = lent(shared, pickle.PickleBuffer(ARRAY))
    number = arrays(shared)[0].stat().st_ino
    free(shared, dropped)
    again = lent(shared, pickle.PickleBuffer(bytearray(1_500_000)))
    assert arrays(shared)[0].stat().st_ino == number
    assert value_of(again) == bytearray(1_500_000)
    assert value == ARRAY
    free(shared, again)
    shared.spares.remove()
    assert list(Path(shared.path).iterdir()) == []


def free(shared: Memory, *references: Reference) -> None:
    """The calls need these no more."""
    for reference in references:
        shared.lent(bytes(reference))


def test_no_more_is_spared_than_the_bound(shared: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is freed beyond it is gone at once, as small values and results are."""
    monkeypatch.setattr(spares, "MOST_BYTES", 3_000_000)
    lots = [bytearray(ARRAY[:-1]) + bytes([n]) for n in range(3)]
    references = [lent(shared, pickle.PickleBuffer(array)) for array in lots]
    references.append(lent(shared, bytes(20_000)))
    references.append(lent(shared, bytes(2_000_000), job=5))
    free(shared, *references)
    assert len(list(Path(shared.path).iterdir())) == 1


def test_so_many_files_are_spared(shared: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no more, however small they are."""
    monkeypatch.setattr(spares, "MOST_FILES", 2)
    free(shared, *(lent(shared, np.full(20_000, n), job=n) for n in range(1, 4)))
    assert len(list(Path(shared.path).iterdir())) == 2


@pytest.mark.parametrize(("n_bytes", "written"), [(150_000, 200_000), (250_000, 400_000), (450_000, 400_000)])
def test_the_file_that_fits_best_is_written_again(shared: Memory, n_bytes: int, written: int) -> None:
    """The smallest that is large enough, else the largest."""
    sizes = [400_000, 200_000, 1_000_000]
    references = [lent(shared, bytes(size - 100), job=n) for n, size in enumerate(sizes, 1)]
    numbers = {file_of(shared, it).stat().st_ino: size for it, size in zip(references, sizes, strict=True)}
    free(shared, *references)
    again = lent(Memory(shared.path), bytes(n_bytes), job=9)
    assert numbers[file_of(shared, again).stat().st_ino] == written
    memory._directories[shared._token] = shared


@pytest.mark.parametrize(("is_idle", "seconds"), [(True, spares.IDLE_SECONDS), (False, spares.BUSY_SECONDS)])
def test_spare_files_go_when_all_rests(
    shared: Memory, monkeypatch: pytest.MonkeyPatch, is_idle: bool, seconds: float
) -> None:
    """After a while, as the next computation may come at once; beside a long job they go later."""
    now = 100.0
    monkeypatch.setattr(spares, "_now", lambda: now)
    free(shared, lent(shared, pickle.PickleBuffer(ARRAY)))
    now += seconds / 2
    shared.spares.rest(is_idle=is_idle)
    assert len(list(Path(shared.path).iterdir())) == 1
    now += seconds
    shared.spares.rest(is_idle=is_idle)
    assert list(Path(shared.path).iterdir()) == []


def test_looks_among_many_files_are_seldom(shared: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of the time at most, however long one takes."""
    now, looks = 100.0, 0
    own = os.listdir

    def slowly(path: str) -> list[str]:
        nonlocal now, looks
        now, looks = now + 0.003, looks + 1
        return own(path)

    monkeypatch.setattr(spares, "_now", lambda: now)
    monkeypatch.setattr(spares.os, "listdir", slowly)
    runner = Memory(shared.path)
    for _ in range(100):
        now += 0.001
        assert not runner.spares.become("b", 200_000)
    assert 2 <= looks <= 5
    memory._directories[shared._token] = shared


class Cycle:
    """Only the garbage collector frees what this has."""

    def __init__(self, what: object) -> None:
        self.what, self.me = what, self


def test_a_file_may_be_freed_while_another_is_chosen(shared: Memory) -> None:
    """By the garbage collector, at any moment: up to Python 3.11 also while a dict's items are listed."""
    thresholds, crowd = gc.get_threshold(), []
    free(shared, *[lent(shared, np.full(30_000 + n, n)) for n in range(30)])
    try:
        for n in range(100):
            gc.disable()
            Cycle(shared.lent(bytes(lent(shared, np.full(40_000 + n, n)))))
            crowd.append([(n, m) for m in range(2000)])  # so that no used tuples are left
            gc.set_threshold(gc.get_count()[0] + 2 * n, 1000, 1000)
            gc.enable()
            kept = shared.lent(bytes(lent(shared, np.full(18_000, n))))
            del kept
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()


def test_a_spare_file_that_is_a_pipe_is_not_waited_for(shared: Memory) -> None:
    """Whoever has put it there."""
    os.mkfifo(f"{shared.path}/s2000000-{os.urandom(16).hex()}")
    assert Memory(shared.path).put("pickle", [memoryview(bytearray(1_900_000)), b"."], job=1) is None
    memory._directories[shared._token] = shared


def test_spare_files_make_room(shared: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what doesn't fit into any of them."""
    free(shared, lent(shared, pickle.PickleBuffer(ARRAY)))
    monkeypatch.setattr(shared, "_room", lambda: 3_000_000 - sum(shared._sizes().values()))
    shared.look_again()
    assert lent(shared, bytes(2_500_000), job=1)
    assert len(list(Path(shared.path).iterdir())) == 1


def test_an_equal_array_is_stored_once_while_any_call_needs_it(shared: Memory) -> None:
    """Equal by its bytes, which may have changed since the last call, and not by which object it is."""
    array = bytearray(ARRAY)
    calls = [lent(shared, [pickle.PickleBuffer(array), n]) for n in range(3)]
    calls.append(lent(shared, [pickle.PickleBuffer(bytearray(ARRAY)), 3]))
    kept = [shared.lent(bytes(call)) for call in calls]
    [file] = arrays(shared)
    array[100_000] ^= 1  # at a glance it is the same
    other = shared.lent(bytes(changed := lent(shared, [pickle.PickleBuffer(array), 4])))
    assert len(arrays(shared)) == 2
    assert value_of(changed) == [array, 4]
    first, second = value_of(calls[0]), value_of(calls[3])
    first[0][0] ^= 1  # type: ignore[index]
    assert second == [ARRAY, 3] == value_of(calls[3])  # each has its own
    del kept[:3], other
    assert arrays(shared) == [file]
    kept.clear()
    assert arrays(shared) == []


def test_an_array_that_stays_as_it_is_is_not_compared(shared: Memory) -> None:
    """Its file is found by its owner's word alone; without that, a file that has changed isn't taken for it."""
    array, steady = np.arange(500_000), Steady()
    with steady.used():
        kept = [shared.lent(bytes(lent(shared, array)))]
        [file] = arrays(shared)
        file.write_bytes(bytes(array.nbytes))
        kept.append(shared.lent(bytes(lent(shared, array))))
    assert arrays(shared) == [file]
    kept.append(shared.lent(bytes(lent(shared, array))))
    assert len(arrays(shared)) == 2


@pytest.fixture
def result(shared: Memory) -> Iterator[Result]:
    made = Result(shared)
    yield made
    made.value.clear()
    made.future = None


class Result:
    """Two arrays that a job has returned, as its client has them, and the future that keeps their file."""

    def __init__(self, shared: Memory, fill: int = 7) -> None:
        reference = lent(shared, [np.full(250_000, fill), np.full(40_000, fill + 1)], job=7)
        self.future: object = shared.lent(bytes(reference))
        self.reference, self.file = reference, file_of(shared, reference)
        self.value: list[np.ndarray[Any, Any]] = value_of(reference)  # type: ignore[assignment]


def of_results(call: Reference) -> list[int]:
    """Which parts of a call are in files of results."""
    return [it.part for it in call.apart if it.job]


def test_arrays_of_a_result_go_into_a_call_as_they_are(shared: Memory, result: Result) -> None:
    """Whatever it does with them; nothing of them is stored anew."""
    call = lent(shared, [result.value, 1])
    assert of_results(call) == [0, 1]
    assert arrays(shared) == []
    assert file_of(shared, call).stat().st_size < 1000
    given: Any = value_of(call)
    given[0][0][:] = 0
    assert [int(array[0]) for array in result.value] == [7, 8]
    assert [int(array[0]) for array in value_of(lent(shared, result.value))] == [7, 8]  # type: ignore[attr-defined]


@pytest.mark.parametrize("at", [0, 100_000, -1])
def test_an_array_that_was_written_to_is_stored_anew(shared: Memory, result: Result, at: int) -> None:
    """Wherever it was; what is beside it isn't."""
    result.value[0][at] = 1
    call = lent(shared, result.value)
    assert of_results(call) in ([1], [])  # the last page of the one has the first items of the other
    assert np.array_equal(value_of(call)[0], result.value[0])  # type: ignore[index]
    assert shared.lent(bytes(call)) is not None


def test_a_part_of_an_array_of_a_result_is_stored_anew(shared: Memory, result: Result) -> None:
    """Only the whole of it is known."""
    call = lent(shared, result.value[0][:200_000])
    assert of_results(call) == []
    assert np.array_equal(value_of(call), np.full(200_000, 7))  # type: ignore[arg-type]


def test_another_array_at_the_same_place_is_stored_anew(shared: Memory, result: Result) -> None:
    """Memory that is given back is soon another array's."""
    known = shared._mapped
    names, results = dict(known._names), dict(known._results)
    result.value.clear()
    assert known._names == known._results == {}
    other: Any = value_of(lent(shared, [np.full(250_000, 20), np.full(40_000, 21)], job=8))
    assert mapped._address(memoryview(other[0]).cast("B")) in names
    known._names |= names  # as if nobody had noticed
    known._results |= results
    given: Any = value_of(lent(shared, other))
    assert [int(array[0]) for array in given] == [20, 21]
    known._results.clear()


def test_a_result_is_mapped_once_for_all_its_arrays(
    shared: Memory, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But one that a call has twice is there twice, as two views of it are in a pool's worker."""
    first, second = result.value
    call = lent(shared, [first, second, first[:]])
    assert of_results(call) == [0, 1, 2]
    read: list[str] = []
    own = shared.read
    monkeypatch.setattr(shared, "read", lambda name, size: read.append(name) or own(name, size))  # type: ignore[func-returns-value]
    given: Any = value_of(call)
    assert read == [call.name, result.file.name, result.file.name]
    given[0][:] = 0
    assert [int(array[0]) for array in given] == [0, 8, 7]


def test_the_file_of_a_result_stays_while_a_call_may_have_it(shared: Memory, result: Result) -> None:
    """The future is dropped, then the array, then the call is done."""
    result.future = None
    assert result.file.exists()
    call = lent(shared, result.value)
    kept = shared.lent(bytes(call))
    shared.tidy(lambda _: False)
    result.value.clear()
    assert result.file.exists()
    assert value_of(call)[1][0] == 8  # type: ignore[index]
    del kept
    assert not result.file.exists()
    shared.spares.remove()


def test_the_file_of_a_result_that_was_written_to_goes_with_its_future(shared: Memory, result: Result) -> None:
    """No call will have it."""
    for array in result.value:
        array[:] = 1
    result.future = None
    assert not result.file.exists()


def test_results_are_kept_for_calls_only_while_there_is_room(
    shared: Memory, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else has a use for their files."""
    result.future = None
    monkeypatch.setattr(resources, "free_memory", lambda: 4_000_000)
    shared.look_again()
    call = lent(shared, bytearray(1_500_000))
    assert not result.file.exists()
    assert value_of(call) == bytearray(1_500_000)
    assert result.value[0][0] == 7


OF_FIRST_ARRAYS = {name: forge for name, forge in OF_ARRAYS.items() if name != "the last byte"}


@pytest.mark.parametrize("forge", OF_FIRST_ARRAYS.values(), ids=OF_FIRST_ARRAYS)
def test_a_forged_file_of_a_result_is_refused_in_a_call(shared: Memory, result: Result, forge: Forgery) -> None:
    """Although the client has looked at it."""
    reference = lent(shared, [result.value[0], pickle.PickleBuffer(ARRAY), "x" * 300, TEXT])
    kept = shared.lent(bytes(reference))
    assert of_results(reference) == [0]
    is_refused(shared, reference, result.file, forge)
    del kept


def test_where_the_kernel_tells_nothing_arrays_are_stored_anew(shared: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some sandboxes have an empty account of a process's pages, or none."""
    monkeypatch.setattr(mapped, "_kernel_tells", lru_cache(mapped._kernel_tells.__wrapped__))
    monkeypatch.setattr(os, "pread", lambda fd, size, at: bytes(size))
    assert of_results(lent(shared, Result(shared).value)) == []


def test_futures_of_one_job_share_its_file(shared: Memory) -> None:
    """It goes with the last of them, and of the calls that have what they gave."""
    reference = lent(shared, [np.ones(250_000)], job=7)
    first, second = shared.lent(bytes(reference)), shared.lent(bytes(reference))
    value: Any = value_of(reference)
    kept = shared.lent(bytes(call := lent(shared, value)))
    value[0][:] = 2
    del first
    assert value_of(call)[0][0] == 1.0  # type: ignore[index]
    value = None
    del second
    assert value_of(call)[0][0] == 1.0  # type: ignore[index]
    del kept
    assert not file_of(shared, reference).exists()
    shared.spares.remove()


def test_a_result_that_is_asked_for_again_is_there(shared: Memory, result: Result) -> None:
    """By another future, when only its first value keeps it."""
    [name] = [file.name for file in Path(shared.path).iterdir()]
    result.future = None
    again = shared.lent(bytes(result.reference))
    value: Any = value_of(result.reference)
    assert Path(shared.path, name).exists()
    call = lent(shared, value)
    kept = shared.lent(bytes(call))
    assert of_results(call) == [0, 1]
    assert value_of(call)[1][0] == 8  # type: ignore[index]
    value = None
    result.value.clear()
    del again, kept
    assert not Path(shared.path, name).exists()


def test_a_result_that_is_unmapped_while_its_future_goes_leaves_no_file(
    shared: Memory, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another thread may drop the array at any moment."""
    has_some = shared._mapped.has_some_of

    def slowly(name: str) -> bool:
        found = has_some(name)
        result.value.clear()
        return found

    monkeypatch.setattr(shared._mapped, "has_some_of", slowly)
    result.future = None
    monkeypatch.undo()
    assert shared._kept == {}
    assert not result.file.exists()
    shared.spares.remove()


def test_only_mappings_of_memory_have_no_descriptor(
    shared: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On other file systems a lease may be granted although a file is mapped, unless somebody has it open."""
    monkeypatch.setattr(directory, "_UNTRACKED", {"trackfd": "as only some Pythons know"})
    assert Memory(shared.path)._mapping == directory._UNTRACKED
    place = Memory.make_at(f"{tmp_path}/workerbee-0-{os.urandom(16).hex()}")
    reference = lent(place, pickle.PickleBuffer(ARRAY), job=1)
    assert value_of(reference) == ARRAY
    place.close()
    memory._directories[shared._token] = shared


def test_a_runner_writes_to_freed_files_too(shared: Memory) -> None:
    """Their pages are there already."""
    first = lent(shared, pickle.PickleBuffer(ARRAY), job=1)
    number = file_of(shared, first).stat().st_ino
    free(shared, first)
    runner = Memory(shared.path)
    second = lent(runner, pickle.PickleBuffer(ARRAY), job=2)
    assert file_of(shared, second).stat().st_ino == number
    kept = shared.lent(bytes(second))
    assert value_of(second) == ARRAY
    assert shared.spares._has_place_for(spares.MOST_BYTES)
    del kept
    shared.spares.remove()
    memory._directories[shared._token] = shared


def test_a_process_maps_no_more_than_half_of_the_files_that_it_may_open(shared: Memory) -> None:
    """The others are copied: a program with thousands of large results can still open its own files."""
    references = [bytes(lent(shared, pickle.PickleBuffer(bytearray(1_100_000)), job=n)) for n in range(1, 101)]
    values, most = [], resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(list(Path("/proc/self/fd").iterdir()))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (2 * (before + 20), most[1]))
        values = [codec.decode(memory.MEMORY, reference) for reference in references]
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 25
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
    assert all(value == bytearray(1_100_000) for value in values)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_small_place_takes_what_it_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it; and what can't be written whole isn't there at all."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no mounts here")
    try:
        monkeypatch.setattr(directory, "_base", lambda: str(tmp_path))
        shared = Memory.make()
        assert shared is not None
        lender = memory.MemoryLender(shared)
        assert [lender.lend("pickle", [bytes(900_000)]) is None for _ in range(4)] == [False, False, True, True]
        monkeypatch.setattr(Memory, "has_room", lambda *_: True)
        assert [lender.lend("pickle", [bytes(1_000_000)]) is None for _ in range(4)] == [False, False, True, True]
        assert len(list(Path(shared.path).iterdir())) == 4
        shared.close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_without_such_a_place_there_is_another_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary directory; and where that isn't there either, the database takes all."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shared = Memory.make()
    assert shared is not None
    assert Path(shared.path).parent == tmp_path
    shared.close()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert Memory.make() is None


def test_without_a_temporary_directory_a_little_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose root can't be written to."""

    def refuse() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(directory, "LEAST_BYTES", 1 << 60)
    monkeypatch.setattr("tempfile.gettempdir", refuse)
    shared = Memory.make()
    assert shared is not None
    assert Path(shared.path).parent == Path("/dev/shm")
    shared.close()


def test_an_interrupt_leaves_nothing_behind(shared: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whoever is just submitting."""

    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", interrupt)
        with pytest.raises(KeyboardInterrupt):
            lent(shared, [bytes(100_000)])
    assert list(Path(shared.path).iterdir()) == []


def test_a_young_result_may_still_be_awaited(shared: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that nobody awaits goes a little later."""
    reference = lent(shared, TEXT, job=7)
    shared.tidy(lambda _: False)
    assert file_of(shared, reference).exists()
    monkeypatch.setattr(memory, "YOUNG_SECONDS", 0.0)
    eventually(lambda: shared.tidy(lambda _: False) or not file_of(shared, reference).exists())


def test_what_has_no_room_takes_none(shared: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller values that come after it still have theirs."""
    monkeypatch.setattr(Memory, "_room", lambda _: 1_000_000.0)
    assert [shared.has_room(size) for size in (2_000_000, 600_000, 600_000, 300_000)] == [False, True, False, True]
