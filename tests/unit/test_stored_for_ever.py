"""What versions before this one have stored: values, calls, errors, functions and signatures that must load for ever.

`stored/N.json` was written once, by the program whose tables are of version N, on Python 3.11, and stays as it is. Of
chunks version 1 has none: they are only in temporary jobsets, which end with the client that alone can read them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zlib
from pathlib import Path
from typing import Any, NamedTuple, cast
from uuid import UUID

import pytest

from workerbee import errors
from workerbee.store import parts
from workerbee.wire import codec, job
from workerbee.wire.chunks import unpacked, value_of
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


class Shelf(NamedTuple):
    """Has a value's parts, as its table has."""

    rows: list[tuple[bytes]]

    def carry(self, name: str, params: dict[str, Any]) -> list[tuple[bytes]]:
        """Give parts."""
        assert name == "get_parts"
        return self.rows[params["first"] - 1 : params["last"]]


@pytest.mark.parametrize("value", stored("large"))
def test_a_large_value_comes_back(value: list[Any]) -> None:
    """In the parts that it was stored in, or with a large twin."""
    digest, name, stored_as, data, pieces = value
    rows = [(zlib.decompress(raw(piece)),) for piece in pieces]
    codec_name, whole = stored_as, zlib.decompress(raw(data))
    if stored_as == parts.PARTS:
        codec_name, whole = parts.Parts(cast("Any", Shelf(rows))).get(7, 2, whole)
    else:
        assert not rows
        assert stored_as in ("pickle", job.TWINNED)
    assert codec_name == name
    assert hashlib.sha256(repr(codec.decode(codec_name, whole)).encode()).hexdigest() == digest


@pytest.mark.parametrize("chunk", stored("chunks"))
def test_a_chunk_comes_back(chunk: list[Any]) -> None:
    """Each of its calls with its value, or the error that it has raised."""
    told, name, data = chunk
    for call, outcome in zip(told, unpacked(codec.decode(name, raw(data))), strict=True):
        if call == "ZeroDivisionError":
            with pytest.raises(ZeroDivisionError):
                value_of(*outcome)
        else:
            assert repr(value_of(*outcome)) == call


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
