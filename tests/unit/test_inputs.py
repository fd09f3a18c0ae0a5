"""What add_job(s) takes: all that JSON can hold, and what is said of the rest."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_codec import EXACTLY_JSON, Colour, nested
from workerbee.errors import InputDataError, PayloadTooLargeError
from workerbee.wire import codec, inputs


@given(st.dictionaries(st.text(st.characters(max_codepoint=300, min_codepoint=1)), EXACTLY_JSON, max_size=4))
def test_good_input_is_what_json_gives(value: dict[str, Any]) -> None:
    """The text is that of json.dumps, and canonical text depends on the data alone."""
    text = inputs.check_input(value)
    assert json.loads(text) == value
    assert codec.canonical_text(text) == codec.canonical_text(json.dumps(value, indent=3))


@pytest.mark.parametrize(
    "value",
    [{"x": (1, 2)}, {1: "x"}, {None: 1, True: 2, 1.5: 3}, {"x": Colour.RED}, {"x": np.float64(0.1)}, OrderedDict(x=1)],
    ids=repr,
)
def test_input_may_be_all_that_json_takes(value: dict[Any, Any]) -> None:
    """Tuples, numbers as keys and subclasses are taken as json.dumps takes them."""
    assert json.loads(inputs.check_input(value)) == json.loads(json.dumps(value, allow_nan=False))


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
        inputs.check_input(value)
    assert caught.value.path.startswith(path)
    assert reason in caught.value.reason
    assert len(str(caught.value)) < 400


def test_input_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a limit to what add_job(s) stores."""
    monkeypatch.setattr(codec, "MAX_BYTES", 1000)
    with pytest.raises(PayloadTooLargeError, match=r"input_data .* pass its path"):
        inputs.check_input({"a": "x" * 1000})


def test_ids_are_compared_as_json() -> None:
    """The id 1 isn't the id 1.0 or "1"; an input without an id has none."""
    texts = ['{"id": 1}', '{"id": 1.0}', '{"id": "1"}', '{"id": null}', '{"id": {"b": 1, "a": 2}}']
    identities = [inputs.id_identity(t) for t in texts]
    assert len(set(identities)) == len(texts)
    assert None not in identities
    assert inputs.id_identity('{"a": 1}') is None
    assert inputs.id_identity('{"id": {"a": 2, "b": 1}, "x": 0}') == identities[-1]
