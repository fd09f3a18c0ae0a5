"""Values in files that clients and bees see: what isn't as its signed reference says is refused; nothing is left."""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from tests.bees import PROJECT
from tests.unit.forgeries import FORGERIES, Forgery
from workerbee import blobs
from workerbee.blobs import BLOB, Depot, Folder, Whereabouts
from workerbee.errors import LargeValuesError, LostValueError
from workerbee.resources import Few
from workerbee.wire import codec

UNIQUE = UUID(int=7)
ARRAY = bytearray(b"a" * 200_000)


@pytest.fixture(params=["file", "local"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """A folder by our own code, and one by fsspec's."""
    made = Folder(Depot(f"{request.param}://{tmp_path}", 1000), UNIQUE)
    made.make("some", is_new=True)
    return made


def here(folder: Folder) -> Path:
    return Path(folder.url.partition("://")[2])


def files(folder: Folder) -> list[Path]:
    return sorted(path for path in here(folder).iterdir() if path.name != "jobset.json")


def lent(folder: Folder, value: object, job: int = 3, run: int = 1) -> Whereabouts:
    encoded = codec.encode(value, "it", lender=folder.lender(job, run))
    assert encoded.codec == BLOB
    return Whereabouts.parse(encoded.data)


def value_of(reference: Whereabouts) -> object:
    return codec.decode(BLOB, bytes(reference))


def file_of(folder: Folder, reference: Whereabouts) -> Path:
    return here(folder) / reference.files[-1].file


# What is in it


def test_a_file_can_be_read_without_us(folder: Folder) -> None:
    """It is the pickle, or the JSON, and nothing else; the folder says whose it is."""
    numbers = list(range(1000))
    for value, load in ((numbers, json.loads), (bytes(5000), pickle.loads), ({1: ARRAY}, pickle.loads)):
        reference = lent(folder, value)
        assert load(file_of(folder, reference).read_bytes()) == value == value_of(reference)
    assert json.loads((here(folder) / "jobset.json").read_text())["jobset"] == "some"


@pytest.mark.parametrize(
    "value",
    [
        np.arange(200_000.0),
        np.asfortranarray(np.arange(200_000.0).reshape(500, 400)),
        np.arange(400_000.0)[::2],
        [Path(), np.arange(200_000.0), "x" * 100_000, b"y" * 2_000_000],
    ],
    ids=["by rows", "by columns", "every second item", "beside others"],
)
def test_an_array_is_its_bytes(folder: Folder, value: Any) -> None:
    """Whatever its items are and however they lie, as a result and as an argument; and it is the caller's own."""
    reference = lent(folder, value)
    assert file_of(folder, reference).stat().st_size == reference.size
    call = codec.encode_call((value,), {}, lender=folder.lender())
    for again in (value_of(reference), codec.decode_call(call.codec, call.data)[0][0]):
        pairs = [(again, value)] if isinstance(value, np.ndarray) else list(zip(again, value, strict=True))  # type: ignore[call-overload]
        assert all(np.array_equal(one, other) for one, other in pairs)
        assert all(one.flags.writeable for one, _ in pairs if isinstance(one, np.ndarray))


def test_small_values_stay_in_their_rows(folder: Folder) -> None:
    """What is smaller than the place's least is as it would be without it."""
    assert codec.encode(bytes(500), "it", lender=folder.lender(1, 1)).codec == codec.PICKLE
    assert codec.encode("x" * 500, "it", lender=folder.lender(1, 1)).codec == codec.JSON
    assert files(folder) == []


def test_one_array_of_many_calls_is_one_file(folder: Folder) -> None:
    """It is written once by a process, unless somebody has removed or changed it, and each job gets its own."""
    calls = [codec.encode_call((pickle.PickleBuffer(ARRAY), n), {}, lender=folder.lender()) for n in range(10)]
    [file] = files(folder)
    before = file.stat()
    (array, n), _ = codec.decode_call(calls[4].codec, calls[4].data)
    array[0] = 0
    assert (n, len(array)) == (4, len(ARRAY))
    assert codec.decode_call(calls[5].codec, calls[5].data)[0][0] == ARRAY
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    for spoil in (file.unlink, lambda: file.write_bytes(bytes(len(ARRAY)))):
        spoil()
        call = codec.encode_call((pickle.PickleBuffer(ARRAY), 1), {}, lender=folder.lender())
        assert codec.decode_call(call.codec, call.data)[0][0] == ARRAY
    assert files(folder) == [file]


# What is refused


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_file_is_refused(folder: Folder, forge: Forgery, tmp_path: Path) -> None:
    """At once, with nothing of it unpickled; also by who only looks, as far as its length says."""
    reference = lent(folder, [Path(), bytes(5000)])
    assert blobs.look(bytes(reference)) == reference
    mark = tmp_path / "mark"
    file = file_of(folder, reference)
    size = file.stat().st_size
    forge(file, mark)
    with pytest.raises(LostValueError, match=file.name):
        value_of(reference)
    assert not mark.exists()
    if not (file.is_file() and not file.is_symlink() and file.stat().st_size == size):
        with pytest.raises(LostValueError):
            blobs.look(bytes(reference))


def test_no_link_is_followed(tmp_path: Path) -> None:
    """Neither in the place of a file, though it leads to the same bytes, nor of the folder."""
    folder = Folder(Depot(f"file://{tmp_path}", 1000), UNIQUE)
    folder.make("some", is_new=True)
    reference = lent(folder, bytes(5000))
    file = file_of(folder, reference)
    file.rename(tmp_path / "moved")
    file.symlink_to(tmp_path / "moved")
    with pytest.raises(LostValueError):
        value_of(reference)
    file.unlink()
    (tmp_path / "moved").rename(file)
    assert value_of(reference) == bytes(5000)
    here(folder).rename(tmp_path / "elsewhere")
    here(folder).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LargeValuesError):
        value_of(reference)


def test_files_are_not_swapped(folder: Folder) -> None:
    """Though they are of one length."""
    one, other = lent(folder, bytes(5000)), lent(folder, bytes(4999) + b"x", job=4)
    first, second = file_of(folder, one), file_of(folder, other)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    for reference in (one, other):
        with pytest.raises(LostValueError, match="was changed"):
            value_of(reference)


SHA = "0" * 64
NAMED = {"file": f"r1-1-{SHA}", "size": 3, "sha256": SHA}
WHOLE = {"folder": f"file:///x/workerbee-{UNIQUE.hex}", "codec": "pickle", "files": [NAMED]}
NO_REFERENCES = {
    "no JSON": b"{",
    "a list": b"[]",
    "another path": json.dumps(WHOLE | {"files": [NAMED | {"file": "/etc/passwd"}]}).encode(),
    "upwards": json.dumps(WHOLE | {"files": [NAMED | {"file": f"../a{SHA}"}]}).encode(),
    "another digest": json.dumps(WHOLE | {"files": [NAMED | {"sha256": "1" * 64}]}).encode(),
    "no file": json.dumps(WHOLE | {"files": []}).encode(),
    "another folder": json.dumps(WHOLE | {"folder": "file:///etc"}).encode(),
    "a folder below": json.dumps(WHOLE | {"folder": f"file:///x/workerbee-{UNIQUE.hex}/.."}).encode(),
    "another codec": json.dumps(WHOLE | {"codec": "memory"}).encode(),
    "a size below 0": json.dumps(WHOLE | {"files": [NAMED | {"size": -1}]}).encode(),
    "a truth value": json.dumps(WHOLE | {"files": [NAMED | {"size": True}]}).encode(),
    "more": json.dumps(WHOLE | {"files": [NAMED | {"path": "/x"}]}).encode(),
    "no base64": json.dumps(WHOLE | {"inline": "?"}).encode(),
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("data", NO_REFERENCES.values(), ids=NO_REFERENCES)
def test_what_is_no_reference_opens_nothing(data: bytes) -> None:
    """Names are ours alone, whoever signed for them."""
    for read in (blobs.recall, blobs.look):
        with pytest.raises(LostValueError, match="no reference"):
            read(data)


def test_a_reference_is_read_as_it_was_written(folder: Folder) -> None:
    """As the database shows it."""
    for reference in (lent(folder, bytes(5000)), Whereabouts("a", "pickle", (), b"\0x")):
        again = json.loads(bytes(reference))
        assert again["codec"] == "pickle"
    assert Whereabouts.parse(json.dumps(WHOLE).encode()).size == 3


URLS = {
    "/a/path": "no URL",
    "file://host/x": "no URL",
    "file:x": "no URL",
    "": "no URL",
    "ftp://me:secret@host/x": "password",
    "file:///x/../y": "upwards",
}


@pytest.mark.parametrize("url", URLS)
def test_what_is_no_place_is_refused(url: str) -> None:
    """In the caller's stack, and no password is repeated."""
    with pytest.raises(ValueError, match=URLS[url]) as refused:
        Depot.of(url, 10)
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match=">= 1"):
        Depot.of("file:///x", 0)
    with pytest.raises(TypeError):
        Depot.of(url, "1 MB")  # type: ignore[arg-type]
    assert Depot.parse(str(Depot.of("file:///x y/", 10))) == Depot("file:///x y", 10)


# Where it can't be


def test_few_of_the_arguments_that_were_written_are_remembered(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was forgotten is written again, as the same file."""
    monkeypatch.setattr(Few, "most", 2)
    first, *_ = [folder.put([bytes([n]) * 2000]) for n in range(5)]
    assert len(folder._written) <= 2
    assert folder.put([bytes(2000)]) == first
    assert len(files(folder)) == 5


def test_a_place_that_is_not_mounted_is_not_written_to(tmp_path: Path) -> None:
    """Nothing is made in what lies below it, and no value counts as lost; the error says what to do."""
    mounted = tmp_path / "mounted"
    folder = Folder(Depot(f"file://{mounted}", 1000), UNIQUE)
    with pytest.raises(LargeValuesError, match="No such file or directory; have it mounted here"):
        folder.make("some", is_new=True)
    mounted.mkdir()
    folder.make("some", is_new=True)
    reference = lent(folder, bytes(5000))
    mounted.rename(tmp_path / "unmounted")
    mounted.mkdir()
    for use in (
        lambda: value_of(reference),
        lambda: blobs.look(bytes(reference)),
        lambda: lent(folder, bytes(5000)),
        lambda: folder.make("some", is_new=False),
        folder.check,
        folder.remove,
        folder.size,
    ):
        with pytest.raises(LargeValuesError):
            use()
    assert list(mounted.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
@pytest.mark.parametrize("scheme", ["file", "local"])
def test_a_full_disk_leaves_nothing_half_done(tmp_path: Path, scheme: str) -> None:
    """The value isn't there at all, and what is there stays readable."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no mounts here")
    try:
        folder = Folder(Depot(f"{scheme}://{tmp_path}", 1000), UNIQUE)
        folder.make("some", is_new=True)
        reference = lent(folder, bytes(50_000))
        before = files(folder)
        with pytest.raises(LargeValuesError, match=os.strerror(errno.ENOSPC)):
            lent(folder, bytes(500_000))
        assert files(folder) == before
        assert value_of(reference) == bytes(50_000)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_that_may_not_be_so_large_is_not_there(folder: Folder) -> None:
    """A quota says so in the middle of the writing."""
    with largest_file(20_000), pytest.raises(LargeValuesError):
        lent(folder, bytes(500_000))
    assert files(folder) == []


def test_fsspec_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With how to get it; and what it can't open too."""
    with pytest.raises(LargeValuesError, match="fsspec can't open it"):
        Folder(Depot("nosuch://x", 1000), UNIQUE)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(LargeValuesError, match=r'pip install "workerbee-executor\[fsspec\]"'):
        Folder(Depot("s3://x", 1000), UNIQUE)


# What is left


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_what_killed_processes_left_is_swept(folder: Folder) -> None:
    """Half-written files, and results that no row names; after a day, at most once a day, and nobody else's files."""
    recorded, orphan, young = (lent(folder, bytes(5000 + n), job=n) for n in (1, 2, 3))
    argument = lent(folder, bytes(9000), job=0)
    draft, foreign = here(folder) / f".{'0' * 32}", here(folder) / "notes.txt"
    draft.write_bytes(b"x")
    foreign.write_bytes(b"x")
    known = {(1, 1, recorded.files[0].file)}
    asked: list[list[int]] = []

    def recorded_of(jobs: list[int]) -> set[tuple[int, int, str]]:
        asked.append(jobs)
        return known

    assert folder.sweep(recorded_of) == 0
    for path in (file_of(folder, recorded), file_of(folder, orphan), file_of(folder, argument), draft, foreign):
        age(path, 2 * blobs.ORPHAN_SECONDS)
    assert folder.sweep(recorded_of) == 0
    age(here(folder) / "jobset.json", 2 * blobs.ORPHAN_SECONDS)
    assert folder.sweep(recorded_of) == 2
    assert asked == [[1, 2]]
    assert folder.sweep(recorded_of) == 0
    assert files(folder) == sorted([foreign, *(file_of(folder, r) for r in (recorded, young, argument))])


def test_a_writer_that_is_killed_leaves_no_value(folder: Folder) -> None:
    """But a draft, which is no value, and is swept."""
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), folder.place.url, str(UNIQUE)], cwd=PROJECT, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    [left] = files(folder)
    assert left.name.startswith(".")
    for path in (left, here(folder) / "jobset.json"):
        age(path, 2 * blobs.ORPHAN_SECONDS)
    assert folder.sweep(lambda _: set()) == 1


KILLED = """
    import os, signal, sys
    from uuid import UUID
    from workerbee.blobs import Depot, Folder

    def parts():
        yield bytes(5000)
        os.kill(os.getpid(), signal.SIGKILL)

    folder = Folder(Depot(sys.argv[1], 1000), UUID(sys.argv[2]))
    folder._write(f"r1-1-{'0' * 64}", parts())
"""


def test_a_folder_is_removed_with_all_that_is_ours(folder: Folder, tmp_path: Path) -> None:
    """Also a half-written file; what is somebody else's stays, and so does another jobset's folder."""
    other = Folder(folder.place, uuid4())
    other.make("other", is_new=True)
    kept = lent(other, bytes(5000))
    lent(folder, bytes(5000))
    (here(folder) / f".{'0' * 32}").write_bytes(b"x")
    assert folder.size() > 5000
    folder.remove()
    assert not here(folder).exists()
    assert value_of(kept) == bytes(5000)
    assert sorted(tmp_path.iterdir()) == [here(other)]


def test_nothing_is_written_into_a_folder_that_is_removed(folder: Folder) -> None:
    """Whoever writes then hears of it, and makes no new one."""
    folder.remove()
    with pytest.raises(LargeValuesError):
        lent(folder, bytes(5000))
    assert not here(folder).exists()


def test_two_copies_of_a_job_store_one_file(folder: Folder) -> None:
    """What both return is one; if they differ, the one that no row names is swept."""
    assert lent(folder, bytes(5000)) == lent(folder, bytes(5000))
    assert len(files(folder)) == 1
    other = lent(folder, bytes(6000))
    assert value_of(lent(folder, bytes(5000))) == bytes(5000)
    for path in here(folder).iterdir():
        age(path, 2 * blobs.ORPHAN_SECONDS)
    assert folder.sweep(lambda _: {(3, 1, other.files[0].file)}) == 1
    assert files(folder) == [file_of(folder, other)]


def test_an_object_store_has_no_folder_anew() -> None:
    """There is none to be missing: whoever writes after a drop looks for the mark, and takes the file back."""
    folder = Folder(Depot(f"memory://{uuid4().hex}", 1000), UNIQUE)
    folder.make("some", is_new=True)
    assert value_of(lent(folder, bytes(5000))) == bytes(5000)
    folder.remove()
    with pytest.raises(LargeValuesError):
        lent(folder, bytes(5000))
    folder.make("some", is_new=True)
    assert folder.size() < 1000
