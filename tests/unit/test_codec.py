"""Values there and back: which lane they take, what is refused and how, and exceptions as records."""

from __future__ import annotations

import base64
import enum
import functools
import json
import math
import pickle
import sys
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.bomb import Bomb
from workerbee.errors import EncodingError, PayloadTooLargeError
from workerbee.wire import codec, inputs, twins, values
from workerbee.wire.functions import Cache

EXACTLY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(min_codepoint=1, max_codepoint=999)), inner),
    max_leaves=20,
)
ANYTHING = st.recursive(
    EXACTLY_JSON | st.floats() | st.binary() | st.complex_numbers() | st.text(st.characters()) | st.just("\ud800"),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(st.characters()) | st.booleans(), inner)
        | st.frozensets(st.integers() | st.tuples(st.text()))
    ),
    max_leaves=20,
)


def alike(a: Any, b: Any) -> bool:
    """Equal and of the same types all through, in the same order, NaN and the sign of zero included."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a.items(), b.items(), strict=True))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    return isinstance(a, complex) or bool(a == b)


# The two lanes


@given(EXACTLY_JSON)
def test_json_goes_as_json(value: Any) -> None:
    """What JSON holds exactly is stored so that a person can read it, and as the json module writes it."""
    encoded = codec.encode(value, "it")
    assert encoded.codec == codec.JSON
    assert encoded.data.decode() == json.dumps(value, allow_nan=False, separators=(",", ":"))
    assert alike(codec.decode(*encoded), value)


@given(ANYTHING)
def test_any_value_comes_back(value: Any) -> None:
    """Whatever the lane, a value comes back equal and of the same types."""
    encoded = codec.encode(value, "it")
    assert alike(codec.decode(*encoded), value)
    if encoded.codec == codec.JSON:
        assert alike(json.loads(json.dumps(value)), value)
        assert "\\u0000" not in encoded.data.decode().replace("\\\\", "")


class Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1: 2},
        {True: 2},
        {None: 2},
        {1, 2},
        b"bytes",
        math.nan,
        math.inf,
        [[-math.inf]],
        [1.0, math.nan],
        "a\0b",
        "\ud800",
        "\udfff and more",
        {"\0": 1},
        {"\udc00": 1},
        10**640,
        [1, -(10**4200)],
        -(10**640),
        Colour.RED,
        [Colour.RED],
        OrderedDict(a=1),
        Decimal(1),
        np.float64(1),
        [np.float64(1)],
        np.int64(1),
        {"a": [(1,)]},
    ],
    ids=repr,
)
def test_what_json_would_change_is_pickled(value: Any) -> None:
    """Types, keys and texts that JSON or PostgreSQL would change, however deep, don't take the JSON lane."""
    encoded = codec.encode(value, "it")
    assert encoded.codec == codec.PICKLE
    again = codec.decode(*encoded)
    assert type(again) is type(value)
    assert alike(again, value)


def test_integers_in_json_are_printed_by_any_python() -> None:
    """Those of 640 digits, the lowest limit that a process may have, and no longer ones."""
    assert codec.encode(10**640 - 1, "it").codec == codec.JSON
    assert codec.encode([1, 10**640], "it").codec == codec.PICKLE


@pytest.mark.parametrize(
    "view",
    [memoryview(b"abc"), memoryview(np.arange(6.0).reshape(2, 3)), memoryview(bytearray(4)).cast("i")],
    ids=["bytes", "array", "integers"],
)
def test_a_view_of_memory_comes_back_as_one(view: memoryview) -> None:
    """Of its own items and shape, in a copy of the memory."""
    again = codec.decode(*codec.encode([view], "it"))[0]
    assert isinstance(again, memoryview)
    assert (again.format, again.shape, again.tolist()) == (view.format, view.shape, view.tolist())


class Megabyte:
    """Says how many were pickled."""

    made = 0

    def __reduce__(self) -> tuple[Any, ...]:
        Megabyte.made += 1
        return bytes, (bytes([Megabyte.made]) * 1_000_000,)


@pytest.mark.parametrize(
    "encode",
    [
        lambda value: codec.encode(value, "the result", 5_000_000),
        lambda value: codec.encode_call((value,), {}, 5_000_000),
        lambda value: Cache(max_payload=5_000_000).describe(lambda: value),
        lambda value: Cache(len, (value,), max_payload=5_000_000).describe(len),
    ],
    ids=["a result", "a call", "a function", "an initializer"],
)
def test_pickling_stops_at_the_limit(encode: Callable[[Any], Any]) -> None:
    """What is too large isn't pickled as a whole, nor looked through, before it is refused."""
    Megabyte.made = 0
    with pytest.raises(PayloadTooLargeError, match="limit of 5 MB"):
        encode([Megabyte() for _ in range(100)])
    assert Megabyte.made < 12


@pytest.mark.parametrize(
    "value",
    [
        ["x" * 1000] * 20_000,
        {"a": {"b": ["x" * 1000] * 20_000}},
        {str(n): [1.5] * 1000 for n in range(2_000)},
        [[1] * 20_000] + [list(range(20_000)) for _ in range(20)],
        "x" * 10_000_000,
        {"a": "\xe9" * 3_000_000},
    ],
    ids=["texts", "texts deep inside", "many keys", "lists", "a text", "a text in a dict"],
)
def test_json_stops_at_the_limit(value: Any) -> None:
    """As little is made of what is too large as possible, and by `add_jobs` too."""
    for encode in (
        lambda: codec.encode(value, "the result", 300_000),
        lambda: codec.encode_call((value,), {}, 300_000),
        lambda: inputs.check_output(value, 300_000),
    ):
        tracemalloc.start()
        with pytest.raises(PayloadTooLargeError, match="limit of 0 MB"):
            encode()
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
        tracemalloc.stop()


@pytest.mark.parametrize(
    "value",
    ["\xe9" * 1_000, {"a": "\xe9" * 1_000}, [0.1234567890123456] * 200],
    ids=["a text", "a text in a dict", "numbers"],
)
def test_what_is_too_large_only_as_json_goes_as_a_pickle(value: Any) -> None:
    """Letters that JSON escapes, and numbers: with a process pool they take half as much, or less."""
    sent = codec.encode(value, "the result", 3_000)
    assert codec.decode(*sent) == value
    calls = [codec.encode_call((value,), {}, 3_000) for _ in range(2)]
    assert codec.decode_call(*calls[0][:2]) == ((value,), {})
    assert calls[0].identity == calls[1].identity is not None


@pytest.mark.parametrize(
    "value",
    [
        "\xe9\U0001f41d" * 7_000,
        ["a", "b" * 20_000, *map(str, range(15_000))],
        {"a": list(range(25_001)), "b": {str(n): [n, [n]] for n in range(10_001)}},
        [[], {}, "", None, 1, 1.5, True, [[1.5] * 10_001]],
        [1, *([[]] for _ in range(10_001))],
    ],
    ids=["a text", "texts", "numbers and keys", "all sorts", "lists"],
)
def test_what_is_long_is_the_same_json(value: Any) -> None:
    """As if it were encoded at once."""
    assert codec.encode(value, "it").data == json.dumps(value, separators=(",", ":")).encode()


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def test_deep_nesting_stays_out_of_json() -> None:
    """PostgreSQL's parser has a limit, so that beyond 200 levels a value is pickled."""
    assert codec.encode(nested(150), "it").codec == codec.JSON
    assert codec.encode(nested(250), "it").codec == codec.PICKLE


@pytest.mark.parametrize(
    "value", [nested(100_000), (x for x in ()), sys._getframe()], ids=["deep", "iterator", "frame"]
)
def test_what_can_not_be_pickled_is_refused(value: Any) -> None:
    """An error of our own names what it was, why, and what to do, and is what pickle raises too."""
    for encode in (lambda: codec.encode(value, "the result"), lambda: codec.encode_call((value,), {})):
        with pytest.raises(
            EncodingError, match=r"^the (result|arguments) can't be pickled \(.*inside the job$"
        ) as caught:
            encode()
        assert isinstance(caught.value, (pickle.PicklingError, TypeError))


def test_cycles_are_pickled() -> None:
    """A value that holds itself has no JSON."""
    value: list[Any] = []
    value.append(value)
    again = codec.decode(*codec.encode(value, "it"))
    assert isinstance(again, list)
    assert again[0] is again


def test_arrays_are_pickled_in_place() -> None:
    """An array takes its own size and little more, by the plain pickler."""
    array = np.arange(100_000.0)
    encoded = codec.encode(array, "it")
    assert len(encoded.data) < array.nbytes + 500
    assert np.array_equal(codec.decode(*encoded), array)  # type: ignore[arg-type]
    assert codec.encode(array, "it").data == pickle.dumps(array, protocol=5)


def test_objects_in_arrays_go_by_value() -> None:
    """An array of objects may hold a lambda, which the plain pickler can't take."""
    array = np.array([lambda: 7], dtype=object)
    again: Any = codec.decode(*codec.encode(array, "it"))
    assert again[0]() == 7


# Calls


@given(
    st.lists(ANYTHING, max_size=3).map(tuple),
    st.dictionaries(st.text(st.characters(max_codepoint=300)), ANYTHING, max_size=3),
)
def test_any_call_comes_back(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Arguments come back equal and of the same types."""
    call = codec.encode_call(args, kwargs)
    assert alike(codec.decode_call(call.codec, call.data), (args, kwargs))


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        (({"b": 1, "a": 2},), {}, '{"b":1,"a":2}'),
        ((1, "x"), {"k": [1.5]}, '{"args":[1,"x"],"kwargs":{"k":[1.5]}}'),
        ((), {}, '{"args":[],"kwargs":{}}'),
        (({"a": 1}, 2), {}, '{"args":[{"a":1},2],"kwargs":{}}'),
    ],
)
def test_a_call_can_be_read(args: tuple[Any, ...], kwargs: dict[str, Any], text: str) -> None:
    """One dict is stored as itself, other arguments under args and kwargs, in their order."""
    assert codec.encode_call(args, kwargs).data.decode() == text


APART = [
    ((1,), {}),
    ((1.0,), {}),
    ((True,), {}),
    (("1",), {}),
    ((None,), {}),
    (([1],), {}),
    ((), {"x": 1}),
    ((), {}),
    (({"args": [1], "kwargs": {}},), {}),
    (({"x": 1},), {}),
    (([{"x": 1}],), {}),
    ((0.0,), {}),
    ((-0.0,), {}),
    ((np.int64(1),), {}),
    ((np.int32(1),), {}),
    ((np.float64(1),), {}),
    ((np.float32(1),), {}),
    ((np.bool_(True),), {}),
    (([np.int64(1)],), {}),
    (({"\0numpy": "int64", "value": "1"}, np.int64(2)), {}),
]


def test_different_calls_are_different() -> None:
    """1, 1.0, True, "1" and NumPy's ones are different arguments."""
    identities = [codec.encode_call(args, kwargs).identity for args, kwargs in APART]
    known = [i for i in identities if i is not None]
    assert len(set(known)) == len(known)
    assert len(known) >= len(APART) - 1


@given(
    st.dictionaries(st.text(st.characters(max_codepoint=300, min_codepoint=1)), EXACTLY_JSON, max_size=4), st.randoms()
)
def test_the_order_of_keys_is_not_identity(value: dict[str, Any], random: Any) -> None:
    """Two dicts that are equal are the same call, in whatever order."""
    items = list(value.items())
    random.shuffle(items)
    shuffled = dict(items)
    assert codec.encode_call((value,), {}).identity == codec.encode_call((shuffled,), {}).identity
    assert codec.encode_call((), value).identity == codec.encode_call((), shuffled).identity


@pytest.mark.parametrize(
    "args", [((1, 2),), ({1},), (math.nan,), (b"",), (np.arange(2),), (np.datetime64(1, "s"),)], ids=repr
)
def test_other_arguments_have_no_identity(args: tuple[Any, ...]) -> None:
    """What isn't exactly JSON or a NumPy number is never taken for another call."""
    assert codec.encode_call(args, {}).identity is None


def test_numpy_scalars_have_an_identity() -> None:
    """The same NumPy number of the same dtype is the same argument."""
    one, two = (codec.encode_call((np.float32(0.1), [np.int8(3)]), {"k": {"x": np.uint8(2)}}) for _ in range(2))
    assert one.identity == two.identity
    assert one.identity is not None


@given(st.lists(st.binary(), max_size=4), st.lists(st.binary(), max_size=4))
def test_digests_tell_lists_of_parts_apart(one: list[bytes], two: list[bytes]) -> None:
    """Where one part ends and the next begins counts."""
    assert (codec.digest(*one) == codec.digest(*two)) == (one == two)


# What is in two places


@pytest.mark.parametrize(
    ("value", "look"),
    [
        ([[0]] * 3, lambda v: v[0] is v[2]),
        ({"a": (row := [1]), "b": row}, lambda v: v["a"] is v["b"]),
        ([[]] * 2, lambda v: v[0] is v[1]),
        ([{}, [one := {}, one]], lambda v: v[1][0] is v[1][1] is not v[0]),
    ],
    ids=["rows", "keys", "empty", "deep"],
)
def test_what_is_in_two_places_is_one(value: Any, look: Callable[[Any], bool]) -> None:
    """A list or dict that is changed in one place is changed in the other."""
    assert look(codec.decode(*codec.encode(value, "it")))
    call = codec.encode_call((value,), {})
    [again], _ = codec.decode_call(call.codec, call.data)
    assert look(again)


def test_arguments_share_too() -> None:
    """Two arguments that are one list are one over there; and that is part of what the call is."""
    one, other = [1], [1]
    call = codec.encode_call((one, one), {"k": one})
    (first, second), kwargs = codec.decode_call(call.codec, call.data)
    assert first is second is kwargs["k"]
    calls = [(one, one), (one, other), ([one], [one]), ([one], [other])]
    identities = [codec.encode_call(args, {}).identity for args in calls]
    assert None not in identities
    assert len(set(identities)) == len(calls)
    assert codec.encode_call(([9], [9] * 1), {}).codec == codec.JSON_CALL


def test_a_row_in_many_places_is_sent_once() -> None:
    """A large one, too, in its own size."""
    row = list(range(100_000))
    encoded = codec.encode({"rows": [row] * 300}, "it")
    assert len(encoded.data) < 1_000_000


# What is unpickled


def test_a_decoder_unpickles_only_pickles(bomb: str) -> None:
    """No other codec, known or not, leads to a pickle."""
    for name in ("json", "json_call", "error", "parts", "", "PICKLE", "x"):
        with pytest.raises(ValueError):
            codec.decode(name, base64.b64decode(bomb))
        with pytest.raises((ValueError, KeyError)):
            codec.decode_call(name, base64.b64decode(bomb))
    assert not Bomb.gone_off


# Twins


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.float32(0.5), "0.5"),
        (np.bool_(1), "true"),
        (np.str_("é"), '"\\u00e9"'),
        (np.array(3), "3"),
        (np.array([[1.5, np.nan], [np.inf, 2]]), "[[1.5,null],[null,2.0]]"),
        ({"a": (1, [np.int8(2), None])}, '{"a":[1,[2,null]]}'),
        (math.nan, "null"),
        (np.array([], "f"), "[]"),
    ],
    ids=repr,
)
def test_a_pickled_result_has_a_twin_to_read(value: Any, text: str) -> None:
    """JSON before the pickle, both signed as one; what comes back is the value itself."""
    encoded = codec.twinned(codec.encode(value, "it"), value)
    assert (encoded.codec, encoded.data.partition(b"\0")[0].decode()) == ("twinned", text)
    again = codec.decode(encoded.codec, encoded.data)
    assert type(again) is type(value)
    np.testing.assert_equal(again, value)


@pytest.mark.parametrize(
    "value",
    [
        np.array([{}]),
        np.array([1j]),
        np.zeros(20_000, "?"),
        [tuple(range(20_000))],
        ("\0",),
        functools.reduce(lambda inner, _: [inner], range(100), (1,)),
        np.ma.array([1, 2]),
        {1: 2},
        1,
        [],
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_json_cannot_tell_or_is_large_has_no_twin(value: Any) -> None:
    """Nor what is JSON itself."""
    encoded = codec.encode(value, "it")
    assert codec.twinned(encoded, value) == encoded


class Hostile:
    """Isn't to be asked for anything."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(name)


def test_a_twin_runs_nothing_of_the_users() -> None:
    """Whatever the value holds."""
    assert twins.readable((1, Hostile())) is twins.NO_TWIN


READ_ONLY: dict[str, Callable[[], Any]] = {
    "an array": lambda: np.arange(10.0),
    "a large one": lambda: np.arange(1_000_000.0),
    "by columns": lambda: np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "every second item": lambda: np.arange(10.0)[::2],
    "of records": lambda: np.zeros(5, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "of times": lambda: np.arange(5).astype("M8[ns]"),
    "of objects": lambda: np.array([None, "x"], dtype=object),
    "big-endian": lambda: np.arange(5, dtype=">f8"),
    "of nothing": lambda: np.zeros((0, 3)),
    "without dimensions": lambda: np.array(3.0),
}


@pytest.mark.parametrize("make", READ_ONLY.values(), ids=READ_ONLY)
@pytest.mark.parametrize(
    "wrap", [lambda array: [array], lambda array: {Decimal(1): array}], ids=["alone", "beside code"]
)
def test_who_gets_a_read_only_array_can_write_to_it(make: Callable[[], Any], wrap: Callable[[Any], Any]) -> None:
    """As in a pool: pandas gives such arrays out, and it is a copy. The sender's stays as it is."""
    array = make()
    array.flags.writeable = False
    apart = values.Values()
    call = codec.encode_call((wrap(array),), {}, apart=apart)
    (there,), _ = codec.decode_call(call.codec, call.data, [memoryview(bytearray(it.data)) for it in call.taken])
    for whole in (there, codec.decode(*codec.encode(wrap(array), "it"))):
        [got] = whole if isinstance(whole, list) else whole.values()
        assert got.flags.writeable
        assert not array.flags.writeable
        assert (got.dtype, got.shape) == (array.dtype, array.shape)
        assert got.flags.f_contiguous or not array.flags.f_contiguous
        np.testing.assert_array_equal(got, array)
