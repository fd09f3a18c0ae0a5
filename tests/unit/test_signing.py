"""Keys and signatures: no row that anyone has touched is accepted, and nobody else sees the key."""

from __future__ import annotations

import copy
import hmac
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workerbee.errors import KeyFileError
from workerbee.wire.signing import MAC_BYTES, Key, Signer

KEY = Key(bytes(range(32)))
KINDS = ("call", "function", "result", "error")


class Row(NamedTuple):
    """What a signature is over."""

    kind: str
    job: int
    run: int
    codec: str
    extra: bytes
    data: bytes


JOBSETS = st.uuids()
ROWS = st.builds(
    Row,
    st.sampled_from(KINDS),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**31 - 1),
    st.sampled_from(["json", "json_call", "pickle", "error", "import", "parts", "json,1", "", "é"]),
    st.binary(max_size=20),
    st.binary(max_size=50),
)


@given(JOBSETS, ROWS)
@settings(max_examples=500)
def test_what_was_signed_is_accepted(jobset: UUID, row: Row) -> None:
    """Whoever has the key verifies what was signed with it, given as bytes or as a view."""
    mac = Signer(KEY, jobset).sign(*row)
    assert len(mac) == MAC_BYTES
    other = Signer(Key(bytes(range(32))), jobset)
    assert other.verify(mac, *row)
    assert other.verify(mac, *row._replace(data=memoryview(row.data)))  # type: ignore[arg-type]


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_it_is_hmac_sha256(head: bytes, data: bytes) -> None:
    """The construction is the standard one, cut to half."""
    assert KEY.digest(head, data) == hmac.digest(bytes(range(32)), head + data, "sha256")[:MAC_BYTES]


@given(JOBSETS, ROWS, ROWS)
@settings(max_examples=2000)
def test_swapped_rows_are_refused(jobset: UUID, row: Row, other: Row) -> None:
    """The signature of one row is good for no other, nor for a mixture of two."""
    signer = Signer(KEY, jobset)
    mac = signer.sign(*row)
    for field in Row._fields:
        mixed = row._replace(**{field: getattr(other, field)})
        assert signer.verify(mac, *mixed) == (mixed == row)
    assert signer.verify(mac, *other) == (other == row)


@given(JOBSETS, JOBSETS, ROWS)
@settings(max_examples=500)
def test_rows_of_other_jobsets_are_refused(jobset: UUID, other: UUID, row: Row) -> None:
    """A row that was copied into another jobset, or a recreated one, isn't accepted."""
    assert Signer(KEY, other).verify(Signer(KEY, jobset).sign(*row), *row) == (jobset == other)


@given(ROWS, st.binary(min_size=1, max_size=64))
@settings(max_examples=500)
def test_another_key_is_refused(row: Row, secret: bytes) -> None:
    """Without the key there is no signature."""
    jobset = UUID(int=1)
    assert not Signer(KEY, jobset).verify(Signer(Key(secret), jobset).sign(*row), *row)


@given(ROWS, st.data())
@settings(max_examples=1000)
def test_flipped_bits_are_refused(row: Row, draw: Any) -> None:
    """One bit of the data, or of the signature, makes it void."""
    signer = Signer(KEY, UUID(int=1))
    mac = signer.sign(*row)
    bit = draw.draw(st.integers(0, 8 * len(mac) - 1))
    assert not signer.verify(flipped(mac, bit), *row)
    if row.data:
        bit = draw.draw(st.integers(0, 8 * len(row.data) - 1))
        assert not signer.verify(mac, *row._replace(data=flipped(row.data, bit)))


def flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ (1 << bit)).to_bytes(len(data), "big")


@given(ROWS, st.integers(0, MAC_BYTES - 1), st.binary(min_size=1, max_size=8))
@settings(max_examples=500)
def test_cut_and_stretched_are_refused(row: Row, size: int, more: bytes) -> None:
    """A signature has its whole length, and so has what is signed."""
    signer = Signer(KEY, UUID(int=1))
    mac = signer.sign(*row)
    for wrong in (mac[:size], mac + more, b"", None):
        assert not signer.verify(wrong, *row)
    assert not signer.verify(mac, *row._replace(data=row.data + more))
    if row.data:
        assert not signer.verify(mac, *row._replace(data=row.data[:-1]))


@given(ROWS, st.integers(1, 40))
@settings(max_examples=1000)
def test_moved_boundaries_are_refused(row: Row, n: int) -> None:
    """Bytes that move from one field into the next make another message."""
    signer = Signer(KEY, UUID(int=1))
    mac = signer.sign(*row)
    for moved in (
        row._replace(extra=row.extra + row.data[:n], data=row.data[n:]),
        row._replace(extra=row.extra[:-n], data=row.extra[-n:] + row.data),
        row._replace(job=int(f"{row.job}{row.run}"), run=0),
        row._replace(codec=f"{row.codec},{len(row.extra)}"),
    ):
        assert signer.verify(mac, *moved) == (moved == row)


# The key


def test_the_key_is_shown_nowhere() -> None:
    """Neither a repr, nor a pickle, nor a copy gives it away; its fingerprint may be seen."""
    secret = os.urandom(32)
    key = Key(secret)
    signer = Signer(key, UUID(int=1))
    for thing in (key, signer):
        for text in (repr(thing), str(thing), f"{thing}"):
            assert secret.hex() not in text
            assert repr(secret)[2:-1] not in text
        for give in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="a key can't be pickled"):
                give(thing)
    assert key.fingerprint in repr(key)
    assert key.fingerprint not in secret.hex()
    assert Key(secret).fingerprint == key.fingerprint != KEY.fingerprint


def test_a_key_is_made_once() -> None:
    """The first client makes the file, for its user alone; later ones find it."""
    path = Path(os.environ["WORKERBEE_KEY_FILE"])
    assert Key.load() is None
    made = Key.load_or_make()
    assert path.stat().st_mode & 0o777 == 0o600
    again = Key.load()
    assert again is not None
    assert Key.load_or_make().fingerprint == again.fingerprint == made.fingerprint
    assert [p.name for p in path.parent.iterdir() if "key" in p.name] == [path.name]


def test_the_key_is_in_the_users_directory(monkeypatch: pytest.MonkeyPatch, environment: Path) -> None:
    """Without WORKERBEE_KEY_FILE it lies where the user's configuration does, in a directory of ours."""
    monkeypatch.delenv("WORKERBEE_KEY_FILE")
    Key.load_or_make()
    [path] = environment.rglob("key")
    assert path.parent.name == "workerbee"
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_permissive_umask_opens_nothing(environment: Path) -> None:
    """The file is private also where the user's files are not."""
    before = os.umask(0)
    try:
        Key.load_or_make()
    finally:
        os.umask(before)
    assert (environment / "key").stat().st_mode & 0o777 == 0o600


def test_processes_that_race_make_one_key(environment: Path) -> None:
    """Eight processes that all find no key end up with the same one."""
    code = "import sys; sys.stdin.read(); from workerbee.wire.signing import Key; print(Key.load_or_make().fingerprint)"
    for n in range(3):
        path = environment / f"key{n}"
        gate, opened = os.pipe()
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=gate,
                stdout=subprocess.PIPE,
                env=os.environ | {"WORKERBEE_KEY_FILE": str(path)},
            )
            for _ in range(8)
        ]
        os.close(gate)
        os.close(opened)
        assert len({racer.communicate()[0] for racer in racers}) == 1
        assert all(racer.returncode == 0 for racer in racers)
    assert sorted(p.name for p in environment.iterdir() if "key" in p.name) == ["key0", "key1", "key2"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o620])
def test_an_open_key_file_is_refused(environment: Path, mode: int) -> None:
    """A key that others may read is no secret; the error is the command that mends it."""
    Key.load_or_make()
    path = environment / "key"
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=f"open to others; run: chmod 600 {path}"):
        Key.load()


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"short", b"00" * 31, b"00" * 33, b"zz" * 32, b"\xff" * 64, b"\0" * 64, b"00" * 100_000],
    ids=lambda c: f"{len(c)} bytes of {c[:2]!r}",
)
def test_a_garbled_key_file_is_refused(environment: Path, content: bytes) -> None:
    """It isn't replaced: rows may have been signed with what it held."""
    path = environment / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    for load in (Key.load, Key.load_or_make):
        with pytest.raises(KeyFileError, match=r"holds no key|can't be read"):
            load()
    assert path.read_bytes() == content


def test_a_key_file_that_can_not_be_read_is_named(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which file, why, and how to name another."""
    for bad in (environment, environment / "file" / "key"):
        (environment / "file").touch()
        monkeypatch.setenv("WORKERBEE_KEY_FILE", str(bad))
        with pytest.raises(KeyFileError, match=rf"{bad} can't be read .*WORKERBEE_KEY_FILE"):
            Key.load_or_make()


def test_a_key_file_that_can_not_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory where nobody can make a file: the error says what to do."""
    monkeypatch.setenv("WORKERBEE_KEY_FILE", "/proc/self/no/key")
    with pytest.raises(KeyFileError, match=r"/proc/self/no/key can't be written .*WORKERBEE_KEY_FILE"):
        Key.load_or_make()
