"""Functions to records and back.

An importable function is stored as its name; any other (of ``__main__``, closures, lambdas) by value. The record also
has digests of the code of imported callables in it, so that a runner can tell whether it has the same code.
"""

from __future__ import annotations

import functools
import importlib
import pickle
import platform
import sys
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import starmap
from operator import attrgetter
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple, cast

from workerbee import pickling
from workerbee.blobs import Depot
from workerbee.errors import EncodingError, FunctionOutdated, FunctionUnavailable, PayloadTooLargeError, text_of
from workerbee.pickling import Namespaces
from workerbee.wire import blame, codec, function_records, values
from workerbee.wire.bounded import Bounded, Scattered, loads
from workerbee.wire.bytecode import code_digest, is_compiled
from workerbee.wire.identity import Identity, Noted
from workerbee.wire.imports import CachedFunction, importable, name_of
from workerbee.wire.stems import Stems, unchanged
from workerbee.wire.values import Value, Values

IMPORT, PICKLE = "import", "pickle"
PYTHON = ".".join(platform.python_version_tuple()[:2])
#: Descriptions of functions that a client keeps, and bytes of their records.
MOST_DESCRIBED, MOST_BYTES = 256, 32_000_000


class Function(NamedTuple):
    """A function ready to be stored, and large arrays that were ``taken`` out of it.

    ``memo`` False: it can't be compared, so no two calls are the same; ``culprit`` says why. ``named``: other functions
    of its name are versions of it. That isn't so for closures, lambdas, partials, methods and objects.
    """

    name: str
    identity: bytes
    memo: bool
    digest: bytes
    codec: str
    body: bytes
    python: str
    named: bool = False
    culprit: str | None = None
    taken: tuple[Value, ...] = ()

    @property
    def size(self) -> int:
        """Its bytes, with those of the arrays that were taken out of it."""
        return len(self.body) + sum(value.taken.size for value in self.taken)


class Imported(NamedTuple):
    """An imported callable as the client has it: digests of its code, and of all that it is made of."""

    name: str
    code: bytes
    whole: bytes


# Describing


class Cache:
    """Describes functions for one executor. Each is described once, and anew if something it depends on has changed."""

    def __init__(
        self,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_payload: int = codec.MAX_BYTES,
        apart: Values | None = None,
        large: Depot | None = None,
    ) -> None:
        """Limit the bytes of a record to ``max_payload``, the initializer and its arguments included.

        Large arrays of functions are put ``apart``. ``large``: where large results of their calls are stored, if not in
        the database.
        """
        self._apart = apart
        self._max_payload = max_payload
        self._large = large
        self._initializer = initializer
        self._initargs = initargs
        self._known: OrderedDict[tuple[Any, ...], tuple[list[Any], list[Noted], Function]] = OrderedDict()
        self._size = 0
        self._stems = Stems()

    def describe(self, fn: Callable[..., Any], version: str | None = None) -> Function:
        """Make the record of ``fn``.

        Raises EncodingError if it can't be pickled, PayloadTooLargeError, and TypeError if it can't be called.
        """
        if type(fn) is FunctionType:  # the usual case is quick, as a submit takes only some microseconds
            known = self._known.get((version, id(fn)))
            if known is not None and unchanged(known[1]):
                return known[2]
        held: list[Any] = []
        steady = _hold(fn, held)
        # These objects are kept, so that no other object gets the same id.
        key = (version, *map(id, held))
        known = self._known.get(key) if steady else None
        if known is not None and unchanged(known[1]):
            return known[2]
        function, watched = self._describe(fn, version)
        if version is not None:
            function = recoded(function, function_records.labelled(function.codec, version))
        if self._large is not None:
            function = recoded(function, function_records.storing(function.codec, self._large))
        if steady:
            self._keep(key, (held, watched, function))
        return function

    def _keep(self, key: tuple[Any, ...], described: tuple[list[Any], list[Noted], Function]) -> None:
        """Keep the latest descriptions, as far as there is room."""
        before = self._known.pop(key, None)
        self._size += described[2].size - (before[2].size if before else 0)
        self._known[key] = described
        while len(self._known) > MOST_DESCRIBED or (self._size > MOST_BYTES and len(self._known) > 1):
            _, (_, _, oldest) = self._known.popitem(last=False)
            self._size -= oldest.size

    @functools.cached_property
    def _setup(self) -> bytes:
        """Pickle the initializer once: otherwise runners would run it anew whenever its globals change here."""
        return (
            b"" if self._initializer is None else self._dump((self._initializer, self._initargs), self._initializer)[0]
        )

    def _describe(self, fn: Callable[..., Any], version: str | None) -> tuple[Function, list[Noted]]:
        if not callable(fn):
            raise TypeError(f"{fn!r} is not callable")
        name, by_name = name_of(fn), self._initializer is None and importable(fn)
        grown = None if by_name else self._stems.of(fn)
        stem, named = (grown.stem, grown.named) if grown else (None, None)
        pickled, taken = (
            (b"", ()) if by_name else self._dump(fn, fn, stem, self._apart)
        )  # first, so that something too large isn't searched
        identity = Identity(fn, named=named)
        imported = [i for i in starmap(_imported, identity.imported.items()) if i.code]  # functions in C have none
        if by_name:
            kind, body = IMPORT, _import_body(f"{fn.__module__}:{fn.__qualname__}", imported)
        else:
            parts = (pickled, self._setup, *([list(map(tuple, imported))] if imported else ()))
            kind, body = values.without(PICKLE, taken) if taken else PICKLE, pickle.dumps(parts, protocol=5)
        function = Function(
            f"partial({name})" if isinstance(fn, partial) else name,  # so that nobody takes it for the function itself
            codec.digest(
                name.encode(), PYTHON.encode(), *(identity.parts if version is None else (b"version", version.encode()))
            ),
            identity.culprit is None or version is not None,
            b"",
            kind,
            body,
            PYTHON,
            _is_named(fn),
            identity.culprit,
            taken,
        )
        self._refuse_more(name, function.size)
        return recoded(function, kind), identity.watched

    def _dump(
        self, value: object, fn: Any, stem: pickling.Stem | None = None, apart: Values | None = None
    ) -> tuple[bytes, tuple[Value, ...]]:
        """Pickle ``fn`` with all that belongs to it; large arrays are put ``apart``."""
        whole, most = self._whole(name_of(fn)), self._max_payload
        file = Bounded(whole, most) if apart is None else Scattered(whole, most, values.LEAST)
        try:
            pickled = pickling.dumps(value, file, stem=stem, is_function=True)
            return pickled, tuple(map(apart.of, file.arrays)) if apart is not None else ()
        except PayloadTooLargeError:
            raise
        except Exception as error:
            raise EncodingError(f"the function {name_of(fn)}", error, blame.culprit(value)) from error

    def _refuse_more(self, name: str, size: int) -> None:
        if size > self._max_payload:
            raise PayloadTooLargeError(self._whole(name), size, self._max_payload)

    def _whole(self, name: str) -> str:
        return (
            f"the function {name}, with what it names" + " and its initializer" * (self._initializer is not None) + ","
        )


def _imported(name: str, fn: Any) -> Imported:
    return Imported(name, code_digest(fn), _whole(fn))


def _whole(fn: Any) -> bytes:
    return _ALL_COUNTS + codec.digest(*Identity(fn).parts)


#: How a digest begins with which all code counts. Of records whose digests left something out nothing is compared.
_ALL_COUNTS = b"operands "


_CONSTANT = frozenset({type(None), bool, int, float, complex, str, bytes, FunctionType, ModuleType, CodeType})


def _hold(thing: Any, held: list[Any]) -> bool:
    """Append the objects that a callable consists of; False if one of them may change in place, unseen."""
    kind = type(thing)
    if kind is partial:
        held += (kind, len(thing.args), *thing.keywords)
        return all(_hold(part, held) for part in (thing.func, *thing.args, *thing.keywords.values()))
    if kind is MethodType:
        held.append(kind)
        return _hold(thing.__func__, held) and _hold(thing.__self__, held)
    held.append(thing)
    if kind in _CONSTANT or isinstance(thing, type):
        return True
    if kind is tuple or kind is frozenset:
        return all(_hold(part, held) for part in thing)
    if kind is BuiltinFunctionType:
        return thing.__self__ is None or isinstance(thing.__self__, ModuleType)
    if importable(thing) or is_compiled(thing):
        return True
    if not _is_its_attributes(thing, kind):
        return False
    held[-1] = reference = weakref.ref(thing)  # weak, so that its owner may let it go
    if any(part is reference for part in held[:-1]):
        return True
    held += vars(thing)
    return all(_hold(part, held) for part in vars(thing).values())


def _is_its_attributes(thing: Any, kind: Any) -> bool:
    """Tell whether an object's state is its ``__dict__`` and nothing else."""
    return (
        hasattr(thing, "__dict__")
        and kind.__reduce_ex__ is object.__reduce_ex__
        and kind.__reduce__ is object.__reduce__
        and getattr(kind, "__getstate__", None) is getattr(object, "__getstate__", None)
        and kind.__basicsize__ <= _Attributes.__basicsize__
    )


class _Attributes:
    pass


def digest(name: str, kind: str, body: bytes, python: str) -> bytes:
    """Digest the content of a record."""
    return codec.digest(name.encode(), kind.encode(), python.encode(), body)


def recoded(function: Function, record_codec: str) -> Function:
    """Give the same function with another ``codec`` of its record (see `records`)."""
    whole = digest(function.name, record_codec, function.body, function.python)
    return function._replace(codec=record_codec, digest=whole)


def _is_named(fn: Any) -> bool:
    plain = isinstance(fn, (FunctionType, CachedFunction)) or is_compiled(fn)
    return plain and "<" not in fn.__qualname__


def _import_body(name: str, imported: list[Imported]) -> bytes:
    return "\n".join([name, *(f"{code.hex()} {whole.hex()}" for _, code, whole in imported)]).encode()


# Loading


class Loader:
    """Loads the functions of one jobset in the process that runs them."""

    def __init__(self) -> None:
        self._namespaces: dict[bytes, Namespaces] = {}

    def load(
        self, kind: str, body: bytes, python: str, *, fresh: bool = True, arrays: Iterable[memoryview] = ()
    ) -> tuple[Callable[..., Any], Namespaces]:
        """Load the function of a record whose signature holds, and give the namespaces for what comes with its calls.

        ``fresh``: this process was started after the record had been seen, so that what it imports is up to date.
        ``arrays`` were taken out of the record. An initializer runs before the first function that it belongs to.
        Raises FunctionUnavailable if the function can't be had here, FunctionOutdated if a fresh process may have it,
        or what its initializer raises.
        """
        if kind == IMPORT:
            with _unavailable():
                name, imported = _read_import(body)
            function = resolve(name)
            _check(imported, python, fresh=fresh)
            return function, self._prepared(b"")
        if python != PYTHON:
            raise FunctionUnavailable(f"it was stored by Python {python} by value, and this is Python {PYTHON}")
        with _unavailable():
            pickled, setup, *more = pickle.loads(body)  # noqa: S301 (verified by the caller)
        _check([Imported(*parts) for parts in more[0]] if more else [], python, fresh=fresh)
        namespaces = self._prepared(setup)
        with _unavailable(), namespaces.used():
            return loads([pickled], arrays), namespaces

    def _prepared(self, setup: bytes) -> Namespaces:
        if setup not in self._namespaces:
            self._namespaces[setup] = Namespaces(setup)
        return self._namespaces[setup]


def _read_import(body: bytes) -> tuple[str, list[Imported]]:
    """Read the name in a record, and what the client has under it, which records of older versions don't have."""
    name, *digests = body.decode().split("\n")
    return name, [Imported(name, *map(bytes.fromhex, line.split())) for line in digests]


def _check(imported: list[Imported], python: str, *, fresh: bool) -> None:
    """Check that imported callables have the same code here as in the client. Raises FunctionUnavailable.

    Bytecode can't be compared across Python's minor versions. Values such as defaults may differ: they may be meant to
    be different in each process, or on each machine.
    """
    for name, code, whole in imported if python == PYTHON else ():
        function = resolve(name)
        if whole.startswith(_ALL_COUNTS) and _whole(function) != whole:
            if not fresh:
                raise FunctionOutdated(name)
            if code_digest(function) != code:
                raise FunctionUnavailable(
                    f"the code of {name} is another here ({_file_of(function)}) than where it was submitted; bring the "
                    "one or the other up to date, and start what runs with the old code again"
                )


def _file_of(function: Any) -> str:
    return str(getattr(sys.modules.get(function.__module__), "__file__", None) or function.__module__)


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        raise FunctionUnavailable(f"it can't be loaded here: {type(error).__name__}: {text_of(error)}") from error


def resolve(name: str) -> Callable[..., Any]:
    """Import the function ``module:qualname``. Never call this with a name from an unsigned row.

    Raises FunctionUnavailable.
    """
    module, _, qualname = name.partition(":")
    try:
        return cast("Callable[..., Any]", attrgetter(qualname)(importlib.import_module(module)))
    except (Exception, SystemExit) as error:
        raise FunctionUnavailable(f"{name} can't be imported here: {type(error).__name__}: {text_of(error)}") from error
