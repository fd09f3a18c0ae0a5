"""The functions of one jobset as a runner has loaded them, each verified before it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple
from uuid import UUID

from workerbee import places, script
from workerbee.bee.messages import CallMessage
from workerbee.errors import FunctionUnsigned
from workerbee.pickling import Namespaces
from workerbee.wire import codec, functions, records
from workerbee.wire.job import FunctionRow
from workerbee.wire.signing import Key, Signer


class Usable(NamedTuple):
    """A function that may be called here, by calls that are signed for the function with this ``digest``.

    ``named``: by the command line or by the caller, so that JSON calls of it need no signature.
    ``namespaces`` are for the functions that come with its calls.
    """

    function: Callable[..., Any]
    signer: Signer | None
    digest: bytes
    named: bool
    namespaces: Namespaces = Namespaces()
    main: ModuleType | None = None

    def arguments(self, call: CallMessage) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Decode the arguments. The call's signature must have been seen to hold, or it is JSON."""
        if call.codec != codec.PICKLE:
            return codec.decode_call(call.codec, call.data)
        with self.namespaces.used():
            arguments = codec.decode_call(call.codec, call.data)
        if self.main is not None:
            script.use(self.main)  # they may have come with another version's
        return arguments


class Work:
    """The functions of one jobset as this runner has loaded them, and the signer of the jobset."""

    def __init__(self, uuid: UUID, key: Key | None) -> None:
        self.uuid = uuid
        self._fingerprint = key.fingerprint if key is not None else None
        self._signer = Signer(key, uuid) if key is not None else None
        self.records: dict[int, FunctionRow] = {}
        #: For each function the jobset's signer, if this bee has the key that its record was signed with.
        self.signers: dict[int, Signer | None] = {}
        self._fresh: dict[int, bool] = {}
        self._loader = functions.Loader()
        self._loaded: dict[int, tuple[Callable[..., Any], Namespaces, ModuleType]] = {}

    def learn(self, number: int, record: FunctionRow, *, fresh: bool = True) -> None:
        """A function, as its row has it. The signature covers all of that by the digest."""
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
        """Why a function, or a pickled call of one, isn't to be touched."""
        return FunctionUnsigned(places.key(), self._fingerprint)

    def load(self, number: int) -> tuple[Callable[..., Any], Namespaces, ModuleType]:
        """The callable, its namespaces and its ``__main__``, made at its first use.

        Raises FunctionUnavailable, or what its initializer raises.
        """
        if number not in self._loaded:
            record = self.records[number]
            if self.signers[number] is None:
                raise self.unsigned()
            loaded = self._loader.load(
                records.kind(record.codec), record.body, record.python, fresh=self._fresh[number]
            )
            self._loaded[number] = (*loaded, sys.modules["__main__"])
        return self._loaded[number]
