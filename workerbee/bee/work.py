"""The functions of one jobset as a runner has loaded them, each after its signature was verified."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple
from uuid import UUID

from workerbee import places, script, threads
from workerbee.bee.messages import CallMessage
from workerbee.bee.shelf import Shelf
from workerbee.blobs import Folder
from workerbee.errors import (
    FunctionOutdated,
    FunctionUnavailable,
    FunctionUnsigned,
    LargeValuesError,
    SignatureError,
    ValueGoneError,
)
from workerbee.pickling import Namespaces
from workerbee.wire import codec, function_records, functions, lending, values
from workerbee.wire.job import FunctionRow
from workerbee.wire.signing import Key, Signer


class Usable(NamedTuple):
    """A function that may be called here, by calls that are signed for the function with this ``digest``.

    ``named``: the command line or the caller has named it, so that calls in JSON need no signature.
    ``namespaces`` are used by functions that come in the arguments of its calls. Large results are lent to ``large``.
    """

    function: Callable[..., Any]
    signer: Signer | None
    digest: bytes
    named: bool
    namespaces: Namespaces = Namespaces()
    main: ModuleType | None = None
    large: lending.Lending | None = None

    def arguments(self, call: CallMessage, shelf: Shelf | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Decode the arguments; the shelf has what calls share.

        The call's signature must have been seen to hold, or it is JSON. Raises SignatureError if it shares what isn't
        there, or not as it should be.
        """
        if call.codec in (codec.JSON, codec.JSON_CALL):
            return codec.decode_call(call.codec, call.data)
        try:
            arrays = _from(shelf, call.codec)
        except ValueGoneError:
            raise SignatureError(call.job) from None
        self._be_main()
        with self.namespaces.used():
            arguments = codec.decode_call(call.codec, call.data, arrays)
        self._be_main()
        return arguments

    def _be_main(self) -> None:
        """Put the function's ``__main__`` in the place where another version's may be."""
        if self.main is not None:
            script.use(self.main)


class Work:
    """The functions of one jobset as this runner has loaded them, and the signer of the jobset."""

    def __init__(self, uuid: UUID, key: Key | None) -> None:
        self.uuid = uuid
        self._fingerprint = key.fingerprint if key is not None else None
        self._signer = Signer(key, uuid) if key is not None else None
        self.records: dict[int, FunctionRow] = {}
        #: For each function the jobset's signer; None if this bee hasn't the key that its record was signed with.
        self.signers: dict[int, Signer | None] = {}
        self._fresh: dict[int, bool] = {}
        self._loader = functions.Loader()
        self._loaded: dict[int, tuple[Callable[..., Any], Namespaces, ModuleType | None]] = {}

    def learn(self, number: int, record: FunctionRow, *, fresh: bool = True) -> None:
        """Take a function's row, whose signature covers all of it by the digest."""
        signed = self._signer is not None and self._signer.verify_function(
            record.mac, record.codec, record.digest, record.body
        )
        whole = functions.digest(record.name, record.codec, record.body, record.python)
        self.records[number] = record
        self.signers[number] = self._signer if signed and whole == record.digest else None
        self._fresh[number] = fresh

    def forget(self, number: int) -> None:
        for known in (self.records, self.signers, self._fresh, self._loaded):
            known.pop(number, None)

    def unsigned(self) -> FunctionUnsigned:
        """Make the error that says why a function, or a pickled call of one, is not used."""
        return FunctionUnsigned(places.key(), self._fingerprint)

    def large(self, number: int) -> Folder | None:
        """Find where large results of a function's calls go. Raises FunctionUnavailable if they can't from here."""
        place = function_records.place(self.records[number].codec)
        try:
            folder = None if place is None else Folder(place, self.uuid)
            if folder is not None:
                folder.check()
        except LargeValuesError as error:
            raise FunctionUnavailable(str(error)) from error
        return folder

    def load(
        self, number: int, shelf: Shelf | None = None, *, is_used: bool = False
    ) -> tuple[Callable[..., Any], Namespaces, ModuleType | None]:
        """Give the callable, its namespaces and its ``__main__``, which are made at the first call.

        ``is_used``: jobs have been run in this process, and may have spoilt it for what is loaded later.
        Raises FunctionUnavailable, FunctionOutdated if a fresh process may have it, or what its initializer raises.
        """
        if number not in self._loaded:
            record = self.records[number]
            if self.signers[number] is None:
                raise self.unsigned()
            try:
                function, namespaces = self._loader.load(
                    function_records.kind(record.codec),
                    record.body,
                    record.python,
                    fresh=self._fresh[number],
                    arrays=_from(shelf, record.codec),
                )
            except ValueGoneError:
                raise self.unsigned() from None
            except FunctionUnavailable as error:
                if is_used and record.python == functions.PYTHON:
                    raise FunctionOutdated(record.name) from error
                raise
            main = sys.modules.get("__main__")
            if main is None and is_used:
                raise FunctionOutdated(record.name)  # a job has taken it away
            self._loaded[number] = threads.single(function), namespaces, main
        return self._loaded[number]


def _from(shelf: Shelf | None, name: str) -> list[memoryview]:
    """Take from the shelf what a codec of this name shares. Raises ValueGoneError."""
    return [] if shelf is None else [shelf.take(taken) for taken in values.taken(name)]
