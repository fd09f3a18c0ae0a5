"""Values there and back: which lane they take, what is refused and how, and exceptions as records."""

from __future__ import annotations

import base64
import enum
import json
import math
import pickle
import subprocess
import sys
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workerbee import codec
from workerbee.errors import EncodingError, InputDataError, JobFailedError, PayloadTooLargeError, RemoteError

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
        10**4200,
        [1, -(10**4200)],
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


# What add_job(s) takes


@given(st.dictionaries(st.text(st.characters(max_codepoint=300, min_codepoint=1)), EXACTLY_JSON, max_size=4))
def test_good_input_is_what_json_gives(value: dict[str, Any]) -> None:
    """The text is that of json.dumps, and canonical text depends on the data alone."""
    text = codec.check_input(value)
    assert json.loads(text) == value
    assert codec.canonical_text(text) == codec.canonical_text(json.dumps(value, indent=3))


@pytest.mark.parametrize(
    "value",
    [{"x": (1, 2)}, {1: "x"}, {None: 1, True: 2, 1.5: 3}, {"x": Colour.RED}, {"x": np.float64(0.1)}, OrderedDict(x=1)],
    ids=repr,
)
def test_input_may_be_all_that_json_takes(value: dict[Any, Any]) -> None:
    """Tuples, numbers as keys and subclasses are taken as json.dumps takes them."""
    assert json.loads(codec.check_input(value)) == json.loads(json.dumps(value, allow_nan=False))


CYCLE: dict[str, Any] = {}
CYCLE["me"] = CYCLE
REFUSED: dict[str, tuple[Any, str, str]] = {
    "no dict": ([1], "input_data", "is a list, and must be a dict"),
    "None": (None, "input_data", "is a NoneType"),
    "NaN": ({"a": [0, math.nan]}, "input_data['a'][1]", "is nan, which JSON has no word for; use None"),
    "infinity": ({"a": {"b": -math.inf}}, "input_data['a']['b']", "is -inf"),
    "bytes": ({"a": b"x"}, "input_data['a']", "is a builtins.bytes, which JSON can't hold"),
    "a set": ({"a": ({1},)}, "input_data['a'][0]", "is a builtins.set"),
    "an array": ({"a": np.arange(2)}, "input_data['a']", "is a numpy.ndarray"),
    "a NumPy integer": ({"a": np.int64(2)}, "input_data['a']", "is a numpy.int64"),
    "NUL": ({"a": "x\0y"}, "input_data['a']", "has a NUL character"),
    "a lone surrogate": ({"a": ["x\udc00y"]}, "input_data['a'][0]", "lone surrogate"),
    "NUL in a key": ({"a": {"\0": 1}}, "input_data['a']", "has the key '\\x00' with a NUL"),
    "a tuple as key": ({"a": {(1,): 1}}, "input_data['a']", "has the key (1,); JSON's keys are strings"),
    "NaN as key": ({math.nan: 1}, "input_data", "has the key nan"),
    "the same key": ({"a": {1: 0, "1": 0}}, "input_data['a']", "has two keys that are the same string in JSON"),
    "true as a key": ({True: 0, "true": 0}, "input_data", "has two keys that are the same string"),
    "a huge integer": ({"a": 10**4000}, "input_data['a']", "more than 3900 digits; use a string"),
    "100,000 lists": ({"a": nested(100_000)}, "input_data['a'][0][0]", "is nested deeper than 200 levels"),
    "itself": (CYCLE, "input_data['me']['me']", "is nested deeper than 200 levels"),
}


@pytest.mark.parametrize(("value", "path", "reason"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_named(value: Any, path: str, reason: str) -> None:
    """The error says where in the input the fault is, and what it is."""
    with pytest.raises(InputDataError) as caught:
        codec.check_input(value)
    assert caught.value.path.startswith(path)
    assert reason in caught.value.reason
    assert len(str(caught.value)) < 400


def test_input_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a limit to what add_job(s) stores."""
    monkeypatch.setattr(codec, "MAX_BYTES", 1000)
    with pytest.raises(PayloadTooLargeError, match=r"input_data .* pass its path"):
        codec.check_input({"a": "x" * 1000})


def test_ids_are_compared_as_json() -> None:
    """The id 1 isn't the id 1.0 or "1"; an input without an id has none."""
    texts = ['{"id": 1}', '{"id": 1.0}', '{"id": "1"}', '{"id": null}', '{"id": {"b": 1, "a": 2}}']
    identities = [codec.id_identity(t) for t in texts]
    assert len(set(identities)) == len(texts)
    assert None not in identities
    assert codec.id_identity('{"a": 1}') is None
    assert codec.id_identity('{"id": {"a": 2, "b": 1}, "x": 0}') == identities[-1]


# Exceptions


class OddError(Exception):
    """Its signature isn't its args."""

    def __init__(self, code: int, *, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class NewlyOddError(Exception):
    """Even __new__ wants what args don't have."""

    def __new__(cls, a: int, b: int) -> Any:
        return super().__new__(cls, a, b)

    def __init__(self, a: int, b: int) -> None:
        super().__init__()


class SilentError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class HolderError(Exception):
    """Holds what can't be pickled."""


def raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301 (for its traceback)
    except BaseException as caught:  # noqa: BLE001
        return caught


def there_and_back(error: BaseException, **options: Any) -> BaseException:
    return codec.decode_error(codec.encode_error(raised(error), **options), trusted=True)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x", 1),
        KeyError("k"),
        OddError(3, detail="d"),
        JobFailedError("again"),
        UnicodeDecodeError("utf8", b"x", 0, 1, "r"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_an_exception_keeps_its_type(error: Exception) -> None:
    """Type, arguments and attributes come back, whatever the signature."""
    again = there_and_back(error)
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)
    assert {k: v for k, v in vars(again).items() if k != "__notes__"} == vars(error)


def test_local_exceptions_keep_their_type() -> None:
    """A class made inside a function is the same class when it comes back to its process."""

    class LocalError(Exception):
        pass

    with pytest.raises(LocalError, match="x"):
        raise there_and_back(LocalError("x"))


def test_an_exception_that_holds_the_unpicklable_keeps_its_type() -> None:
    """What it holds is given up before its type is."""
    error = HolderError("text", (x for x in ()))
    error.frame = sys._getframe()  # type: ignore[attr-defined]
    again = there_and_back(error)
    assert type(again) is HolderError
    assert again.args[0] == "text"
    assert "generator" in again.args[1]


def test_an_exception_that_can_not_be_rebuilt_is_remote() -> None:
    """A RemoteError says the type, the message and the traceback."""
    again = there_and_back(NewlyOddError(1, 2))
    assert type(again) is RemoteError
    assert again.type_name.endswith("test_codec.NewlyOddError")
    assert "in raised" in again.traceback_text


def test_an_exception_whose_str_raises_is_recorded() -> None:
    """User code in an exception can't stop its record."""
    record = json.loads(codec.encode_error(raised(SilentError())))
    assert record["message"] == "<its __str__ raised RuntimeError>"
    assert type(there_and_back(SilentError())) is SilentError


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=lambda e: type(e).__name__)
def test_what_would_end_the_client_is_remote(error: BaseException) -> None:
    """SystemExit and its like are recorded, and arrive as something that `except Exception` catches."""
    again = there_and_back(error)
    assert type(again) is RemoteError
    assert again.type_name == type(error).__name__


def test_the_remote_traceback_is_the_cause() -> None:
    """A traceback that is printed shows where it was raised, over there."""
    again = there_and_back(ValueError("x"))
    shown = "".join(traceback.format_exception(again))
    assert "in raised\n" in shown
    assert shown.count("ValueError: x") == 2


def test_causes_are_in_the_traceback() -> None:
    """What an exception was raised from is text in the traceback."""
    error = ValueError("outer")
    error.__cause__ = KeyError("inner")
    assert "KeyError: 'inner'" in str(there_and_back(error).__cause__)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
def test_notes_are_added() -> None:
    """Where it ran is a note behind those of the job's own."""
    error = ValueError("x")
    error.add_note("mine")
    assert there_and_back(error, notes=["job 7"]).__notes__ == ["mine", "job 7"]
    assert there_and_back(SystemExit(), notes=["job 7"]).__notes__ == ["job 7"]


def test_long_texts_are_cut() -> None:
    """A message of megabytes doesn't fill the table; both ends of a long traceback are kept."""
    record = json.loads(codec.encode_error(raised(ValueError("x" * 10_000_000)), text_only=True))
    assert len(record["message"]) <= codec.TRACEBACK
    assert "characters left out" in record["traceback"]
    assert record["traceback"].startswith("Traceback")


def test_texts_are_fit_for_postgresql() -> None:
    """NUL and lone surrogates in messages are written out."""
    record = json.loads(codec.encode_error(raised(ValueError("a\0b\ud800"))))
    assert record["message"] == "a\\0b\\ud800"
    assert "\0" not in record["traceback"]


def test_a_keyless_bee_records_text_alone() -> None:
    """Without a key there is nothing to unpickle."""
    data = codec.encode_error(raised(ValueError("x")), text_only=True)
    assert json.loads(data)["pickle"] is None
    assert type(codec.decode_error(data, trusted=True)) is RemoteError


class Bomb:
    """Leaves a mark where it is unpickled."""

    gone_off = False

    def __reduce__(self) -> Any:
        return setattr, (Bomb, "gone_off", True)


@pytest.fixture
def bomb() -> Iterator[str]:
    yield base64.b64encode(pickle.dumps(Bomb())).decode()
    Bomb.gone_off = False


def test_an_untrusted_error_is_never_unpickled(bomb: str) -> None:
    """The pickle in a record counts only if its signature held."""
    record = {"type": "ValueError", "message": "m", "traceback": "t", "notes": [], "pickle": bomb}
    error = codec.decode_error(json.dumps(record).encode(), trusted=False)
    assert type(error) is RemoteError
    assert not Bomb.gone_off
    codec.decode_error(json.dumps(record).encode(), trusted=True)
    assert Bomb.gone_off, "this test's bomb doesn't work"


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        1,
        "x",
        {},
        {"notes": 5},
        {"notes": {"a": 1}},
        {"type": None, "message": [], "traceback": 7, "pickle": 3},
    ],
    ids=repr,
)
def test_any_json_is_an_error_record(record: object) -> None:
    """Whoever writes nonsense into the table breaks nothing."""
    for trusted in (False, True):
        assert type(codec.decode_error(json.dumps(record).encode(), trusted=trusted)) is RemoteError


def test_a_decoder_unpickles_only_pickles(bomb: str) -> None:
    """No other codec, known or not, leads to a pickle."""
    for name in ("json", "json_call", "error", "parts", "", "PICKLE", "x"):
        with pytest.raises(ValueError):
            codec.decode(name, base64.b64decode(bomb))
        with pytest.raises((ValueError, KeyError)):
            codec.decode_call(name, base64.b64decode(bomb))
    assert not Bomb.gone_off


def test_errors_of_classes_of_a_script_come_back(tmp_path: Any) -> None:
    """An exception class of `__main__` travels by value, from one process to another."""
    script = "from workerbee import codec\nclass Mine(Exception): pass\nimport sys\n"
    script += "sys.stdout.buffer.write(codec.encode_error(Mine('x')))"
    data = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    again = codec.decode_error(data, trusted=True)
    assert type(again).__name__ == "Mine"
    assert again.args == ("x",)
