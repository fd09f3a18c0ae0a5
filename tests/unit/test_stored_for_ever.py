"""What versions before this one have stored: values, calls, errors, functions and signatures that must load for ever.

`stored/N.json` was written once, by the program whose tables are of version N, on Python 3.11, and stays as it is.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from workerbee import errors
from workerbee.wire import codec
from workerbee.wire.failures import decode_error
from workerbee.wire.functions import Loader
from workerbee.wire.signing import Key, Signer

SAMPLES = sorted(Path(__file__).with_name("stored").glob("*.json"))
STORED = {path.stem: json.loads(path.read_text("utf-8")) for path in SAMPLES}


def stored(kind: str) -> list[Any]:
    """All of a kind, named by their version and place."""
    return [pytest.param(thing, id=f"{v}-{n}") for v, things in STORED.items() for n, thing in enumerate(things[kind])]


def raw(text: str) -> bytes:
    return base64.b64decode(text)


def test_each_version_has_its_sample() -> None:
    """A migration that changes what is stored adds another."""
    assert STORED.keys() >= {"1", "2"}


@pytest.mark.parametrize("value", stored("values"))
def test_a_value_comes_back(value: list[str]) -> None:
    """Equal to what it was, by JSON or as a pickle, with or without a twin to read."""
    text, name, data = value
    assert repr(codec.decode(name, raw(data))) == text


@pytest.mark.parametrize("call", stored("calls"))
def test_a_call_comes_back_and_is_the_same_call(call: list[str]) -> None:
    """So that one that is submitted today attaches to what was stored then."""
    text, name, data, identity = call
    args, kwargs = codec.decode_call(name, raw(data))
    assert repr((args, kwargs)) == text
    again = codec.encode_call(args, kwargs)
    assert again.codec == name
    assert again.identity == (None if identity is None else raw(identity))


@pytest.mark.parametrize("error", stored("errors"))
def test_an_error_comes_back(error: list[str]) -> None:
    """Of the same type and with the same arguments, and its traceback beside it; as text without the key."""
    name, arguments, record = error
    back = decode_error(raw(record), trusted=True)
    assert (type(back).__name__, repr(back.args)) == (name, arguments)
    assert "Traceback" in str(back.__cause__)
    told = decode_error(raw(record), trusted=False)
    assert isinstance(told, errors.RemoteError)
    assert name in str(told)


@pytest.mark.parametrize("function", stored("functions"))
def test_a_function_is_called_as_it_was(function: list[str]) -> None:
    """One by name on each Python, one by value on the Python that it was made with."""
    _, kind, body, _, python, argument, result = function
    if kind != "import" and python != f"{sys.version_info[0]}.{sys.version_info[1]}":
        pytest.skip(f"its code is that of Python {python}")
    fn = Loader().load(kind, raw(body), python)[0]
    assert repr(fn(json.loads(argument))) == result


@pytest.mark.parametrize("version", STORED)
def test_a_signature_still_holds(version: str) -> None:
    """Of a call, a function, a result and an error."""
    signer = Signer(Key(b"k" * 32), UUID(int=5))
    call, function, result, error = map(raw, STORED[version]["signatures"])
    assert signer.verify_call(call, 7, "json", b"f", b"data")
    assert signer.verify_function(function, "import", b"digest", b"body")
    assert signer.verify_end(result, 7, 2, "json", b"1", is_value=True)
    assert signer.verify_end(error, 7, 2, "error", b"{}", is_value=False)
