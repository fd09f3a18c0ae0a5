"""Arrays that calls share: taken out of their pickles, known by what is in them, and kept on a bee's shelf."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.waiting import eventually
from workerbee.bee.shelf import Shelf
from workerbee.errors import DatabaseUnavailableError, ValueGoneError
from workerbee.wire import codec, values
from workerbee.wire.values import Steady, TakenArray, Value, Values

ARRAY = bytearray(b"a" * 1_200_000)


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    made = Shelf.make()
    assert made is not None
    yield made
    made.close()
    assert not Path(made.path).exists()


@pytest.fixture
def apart() -> Values:
    return Values()


def taken_of(array: bytearray) -> TakenArray:
    return Values().of(memoryview(array)).taken


def files(shelf: Shelf) -> list[Path]:
    return list(Path(shelf.path).iterdir())


def call(apart: Values, *args: object) -> codec.Call:
    return codec.encode_call(args, {}, apart=apart)


def test_large_arrays_are_taken_out_of_a_call() -> None:
    """Each in its place; small ones, and all else, stay."""
    other = bytearray(values.LEAST)
    args = pickle.PickleBuffer(ARRAY), [pickle.PickleBuffer(other), bytearray(values.LEAST - 1)], "x"
    made = call(Values(), *args)
    assert [value.data for value in made.taken] == [ARRAY, other]
    assert values.taken(made.codec) == tuple(value.taken for value in made.taken)
    assert codec.size(made) == len(made.data) + len(ARRAY) + len(other)
    arrays = [memoryview(bytearray(value.data)) for value in made.taken]
    assert codec.decode_call(made.codec, made.data, arrays)[0] == (ARRAY, [other, bytearray(values.LEAST - 1)], "x")
    assert call(Values(), bytearray(10)).codec == codec.PICKLE


def test_equal_arrays_are_one_value_and_changed_ones_another() -> None:
    """Also where the same object was changed where no glance falls."""
    apart, array = Values(), bytearray(ARRAY)
    [first], [equal] = (call(apart, pickle.PickleBuffer(it), n).taken for n, it in enumerate((array, bytearray(ARRAY))))
    assert equal is first
    array[10_000] ^= 1
    [changed] = call(apart, pickle.PickleBuffer(array)).taken
    assert changed.taken != first.taken
    assert first.data == ARRAY


def test_an_array_that_stays_as_it_is_is_not_compared(apart: Values) -> None:
    """As long as somebody says so, and it is the same memory of the same owner."""
    raw = bytearray(ARRAY)
    owner, steady = np.frombuffer(raw, np.uint8), Steady()

    def value(array: np.ndarray[Any, Any]) -> Value:
        with steady.used():
            [made] = call(apart, array).taken
        return made

    first = value(owner)
    raw[10_000] ^= 1
    assert value(owner) is value(owner[:]) is first
    assert value(owner[: values.LEAST]).data == raw[: values.LEAST]
    assert call(apart, owner).taken[0].data == raw  # nobody says so here
    first = value(owner)
    raw[10_000] ^= 1
    del owner
    assert value(np.frombuffer(raw, np.uint8)).data == raw


def test_few_steady_arrays_are_known(apart: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many a generator makes."""
    monkeypatch.setattr(values, "_STEADY", 2)
    steady, arrays = Steady(), [np.full(values.LEAST, n, np.uint8) for n in range(4)]
    with steady.used():
        copies = [value for array in arrays for value in call(apart, array).taken]
    known = [steady.knows(memoryview(array), copy) for array, copy in zip(arrays, copies, strict=True)]
    assert known == [False, False, True, True]


@pytest.mark.parametrize("name", ["pickle;values=", "pickle;values=zz", "pickle;values=aa:1,bb", "json", ""])
def test_what_names_no_arrays_has_none(name: str) -> None:
    """A row may say anything."""
    assert values.taken(name) == ()


def test_an_array_is_fetched_once(shelf: Shelf) -> None:
    """And each who takes it has his own."""
    taken = taken_of(ARRAY)
    pieces = iter([bytes(ARRAY[:7]), bytes(ARRAY[7:])])
    for _ in range(2):
        shelf.stock(taken, lambda _: pieces)
    runner = Shelf(shelf.path)
    first, second = runner.take(taken), runner.take(taken)
    first[0] = 1
    assert second == ARRAY


def test_what_could_not_be_fetched_is_not_there(shelf: Shelf) -> None:
    """Nor half of it, in memory or elsewhere; it is fetched anew."""
    fetched = []

    def broken(_: TakenArray) -> Iterator[bytes]:
        fetched.append(1)
        yield b"a" * 1000
        raise DatabaseUnavailableError("gone")

    taken = taken_of(ARRAY)
    with pytest.raises(DatabaseUnavailableError):
        shelf.stock(taken, broken)
    assert len(fetched) == 1
    assert files(shelf) == []
    assert not Path(shelf.further).exists()
    shelf.stock(taken, lambda _: [bytes(ARRAY)])
    assert shelf.take(taken) == ARRAY


def test_only_what_no_call_needs_is_removed(shelf: Shelf) -> None:
    """The oldest first, and no more than must be."""
    arrays = [ARRAY + bytes([n]) for n in range(4)]
    taken = [taken_of(array) for array in arrays]
    for it, array in zip(taken, arrays, strict=True):
        shelf.stock(it, lambda _, array=array: [bytes(array)])  # type: ignore[misc]
    shelf.stock(taken[1], lambda _: [])
    shelf.clear({taken[0]}, 2 * len(ARRAY) + 2)
    for n, array in enumerate(arrays):
        if n in (0, 1):
            assert shelf.take(taken[n]) == array
        else:
            with pytest.raises(ValueGoneError):
                shelf.take(taken[n])
    shelf.clear({taken[0], taken[1]}, 0)
    assert len(files(shelf)) == 2


CHANGES: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "a byte shorter": lambda file: os.truncate(file, len(ARRAY) - 1),
    "another byte": lambda file: file.write_bytes(ARRAY[:-1] + b"b"),
    "a link": lambda file: (file.rename(file.with_name("moved")), file.symlink_to(file.with_name("moved"))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("is_known", [False, True])
def test_nothing_else_is_taken_for_the_array(shelf: Shelf, change: Callable[[Path], object], is_known: bool) -> None:
    """Whether or not it was looked at before."""
    taken = taken_of(ARRAY)
    shelf.stock(taken, lambda _: [bytes(ARRAY)])
    if is_known:
        assert shelf.take(taken) == ARRAY
    [file], later = files(shelf), Path(shelf.path, "later")
    eventually(lambda: later.write_bytes(b"") or later.stat().st_mtime_ns > file.stat().st_mtime_ns)
    change(file)
    with pytest.raises(ValueGoneError):
        shelf.take(taken)
