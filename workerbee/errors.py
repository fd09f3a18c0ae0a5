"""Every exception that Workerbee raises, and what each one is also an instance of.

::

    Exception
    ├── JobFailedError (ValueError)                 raised by a job: try me again
    ├── RemoteError                                 a job's exception that can't be rebuilt here
    └── WorkerbeeError
        ├── JobsetIdError (ValueError, TypeError)   the id can't name a jobset
        ├── JobsetExistsError                       set up twice
        ├── JobsetNotFoundError (LookupError)       not there, or dropped meanwhile
        ├── JobLostError (LookupError)              its rows are gone
        ├── ValueGoneError (LookupError)            it was passed in memory, and isn't there any more
        ├── LostValueError (LookupError)            it was in a file, which is gone or changed
        ├── LargeValuesError (OSError)              the place for large values can't be used from here
        ├── InputDataError (ValueError, TypeError)  JSON can't hold it
        ├── UniqueInputDataConstraintError (ValueError)
        ├── EncodingError (PicklingError, TypeError)
        │   └── PayloadTooLargeError
        ├── SignatureError                          a row was not signed by this jobset's key
        ├── KeyFileError                            the key file can't be used
        ├── KeyMismatchError                        another key signed this
        ├── FunctionUnavailable                     this bee can't run the function; another may
        │   ├── FunctionUnsigned                    the key file here isn't that of who stored it
        │   └── FunctionOutdated                    this process can't any more; a new one may
        ├── ConnectionStringError (ValueError)
        ├── DatabaseUnavailableError (ConnectionError)
        ├── UnsupportedDatabaseError                too old, or a newer schema
        └── EmbeddedServerError                     no server was named, and none could be started

    concurrent.futures.process.BrokenProcessPool    (so that existing ``except`` clauses hold)
    ├── BrokenWorkerbeeError                        the executor can't go on
    │   └── InitializerFailedError
    └── RunnerDiedError                             this job kills its runners; the executor goes on

Constructors take facts and say what to do next, so that no raise site composes prose.
"""

from __future__ import annotations

import pickle
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from types import MemberDescriptorType
from typing import Any


def text_of(thing: object) -> str:
    """Give ``str`` of a user's object, even if that raises."""
    try:
        return "".join((str(thing),))  # the text may itself be of a user's class
    except BaseException as broken:  # noqa: BLE001 (the user's __str__)
        return f"<its __str__ raised {type(broken).__name__}>"


def brief(written: object, most: int = 40) -> str:
    """Give in one short line what anybody may have written where something short is meant to be."""
    text = str(written)
    return text if len(text) <= most and text.isprintable() else f"{text[:most]!r}{'…' * (len(text) > most)}"


def rebuilt(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    """Make an exception from a pickle without calling its ``__init__``, which may take other arguments."""
    try:
        error = kind.__new__(kind, *args)
    except Exception:  # noqa: BLE001 (its class's own, that wants other arguments as well)
        error = _builtin_base(kind).__new__(kind, *args)
    BaseException.__dict__["args"].__set__(error, args)
    complete(error, (state, {}))
    return error


def complete(error: BaseException, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Give an exception from a pickle its attributes and slots, without calling its own methods."""
    attributes, members = state
    BaseException.__dict__["__dict__"].__get__(error).update(attributes)
    for name, value in members.items():
        with suppress(AttributeError, TypeError):  # `__new__` has set what can't be set here
            BaseException.__setattr__(error, name, value)


def taken_apart(error: BaseException) -> tuple[dict[str, Any], dict[str, Any], tuple[Any, ...]]:
    """Take the attributes, the slots and the arguments of an exception, without calling its own methods."""
    attributes = attributes_of(error)
    members = {name: value for name, value in _members(error).items() if name not in attributes}
    return attributes, members, BaseException.__dict__["args"].__get__(error)


def attributes_of(error: BaseException) -> dict[str, Any]:
    """Give the ``__dict__`` of an exception, even if its class hides it."""
    attributes: dict[str, Any] = BaseException.__dict__["__dict__"].__get__(error)
    return attributes


def _members(error: BaseException) -> dict[str, Any]:
    """Read the slots: those of the user's classes, and those of built-in ones, such as ``errno``."""
    members = {}
    for cls in set(type(error).__mro__) - {BaseException, object}:
        for name, member in vars(cls).items():
            if type(member) is MemberDescriptorType and name != "obj":  # an AttributeError's may be anything
                with suppress(AttributeError):  # the slot is empty
                    members[name] = member.__get__(error)
    # An OSError's slots mustn't be set to None.
    return {name: value for name, value in members.items() if value is not None or not issubclass(type(error), OSError)}


def _builtin_base(kind: type[BaseException]) -> type[BaseException]:
    return next(base for base in kind.__mro__ if base.__module__ == "builtins" and issubclass(base, BaseException))


class JobFailedError(ValueError):
    """Raised by a job function: this attempt failed, another may succeed.

    The job is tried again after the work that waits now, with exponential backoff, until its limit
    of attempts is reached.
    """


class RemoteError(Exception):
    """A job's exception whose type can't be rebuilt in this process.

    Attributes: ``type_name`` (as ``module.qualname``), ``message`` (its ``str``) and
    ``traceback_text``. A job's ``SystemExit``, ``KeyboardInterrupt``, ``GeneratorExit`` and
    ``asyncio.CancelledError`` arrive as this too: they would end or cancel whoever waits for the job.
    """

    def __init__(self, type_name: str, message: str, traceback_text: str = "") -> None:
        super().__init__(type_name, message, traceback_text)
        self.type_name = type_name
        self.message = message
        self.traceback_text = traceback_text

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"  # without the traceback, which its cause shows


class WorkerbeeError(Exception):
    """The base of all errors that are Workerbee's own."""

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuilt, (type(self), self.args, self.__dict__)


class JobsetIdError(WorkerbeeError, ValueError, TypeError):
    """The id can't name a jobset; ``taken_by``: something in this database that is no jobset has the name."""

    def __init__(self, jobset_id: object, taken_by: str | None = None) -> None:
        super().__init__(
            f"{jobset_id!r} can't name a jobset: use a str of 1 to 48 lowercase ASCII letters, digits and "
            "underscores, such as 'texturemap_2016_08_24'"
            if taken_by is None
            else f"{jobset_id!r} can't name a jobset here: somebody has made a {taken_by} of this name in the schema "
            f"workerbee; choose another jobset_id, or rename that {taken_by}"
        )


class JobsetExistsError(WorkerbeeError):
    """``setup_jobset`` found the jobset already there."""

    def __init__(self, jobset_id: str) -> None:
        super().__init__(
            f"the jobset {jobset_id!r} exists already; pass ignore_existing_jobset=True to go on with it, "
            "or choose another id"
        )


class JobsetNotFoundError(WorkerbeeError, LookupError):
    """The jobset isn't in this database, or was dropped while it was used, or never had a job to run."""

    def __init__(
        self, jobset_id: str, existing: tuple[str, ...] = (), *, dropped: bool = False, empty_for: float | None = None
    ) -> None:
        there = f"jobsets here: {', '.join(existing[:20])}" if existing else "this database has no jobsets"
        from difflib import get_close_matches  # noqa: PLC0415 (few need it)

        if near := get_close_matches(jobset_id, existing, 1):
            there = f"did you mean {near[0]!r}? {there}"
        what = "was dropped while it was in use" if dropped else "doesn't exist"
        advice = f"{what} ({there}); create it with setup_jobset() or by an executor with this jobset_id"
        if empty_for is not None:
            advice = (
                f"has had no job in {empty_for:g} s; add jobs to it first, or wait for them "
                "with run(..., busywait=True); where who set it up has ended before it added any, "
                "run this program again: setup_jobset() is then True for one process, which adds them"
            )
        super().__init__(f"the jobset {jobset_id!r} {advice}")
        self.jobset_id = jobset_id


class JobLostError(WorkerbeeError, LookupError):
    """A job that was stored isn't in the database any more, so nobody will do it."""

    def __init__(self, jobset_id: str, job: int) -> None:
        super().__init__(
            f"job {job} of {jobset_id} is in the database no more: somebody has deleted rows of its tables, or the "
            "server has lost its last commits (a failover, a restore); submit the call again"
        )
        self.jobset_id, self.job = jobset_id, job


class ValueGoneError(WorkerbeeError, LookupError):
    """A large value of a temporary jobset that was passed in memory isn't there any more, or not as it was."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"a large value of a temporary jobset can't be had: {reason}; such values are kept in memory, as long as "
            "somebody keeps the job's future: keep that, or give the executor a jobset_id, or submit the call again"
        )


class LostValueError(WorkerbeeError, LookupError):
    """A large value of a durable jobset was in a file, ``where``, that isn't there any more, or not as it was."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            f"a large value is lost: {where} {reason}; a retry computes a job's result anew, and so does its call when "
            "it is submitted again, which brings lost arguments again too"
        )


class LargeValuesError(WorkerbeeError, OSError):
    """The place for large values, ``url``, can't be used from this machine; ``reason`` says why."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"large values can't be stored or read in {url} on this machine: {reason}; have it mounted here under this "
            "name, with room in it and the right to write; if the folder was cleaned away, make it again, and what was "
            "in it counts as lost"
        )
        self.url = url


class InputDataError(WorkerbeeError, ValueError, TypeError):
    """Input data or a result that JSON can't hold; ``path`` says where in it, ``reason`` why."""

    def __init__(self, what: str, path: str, reason: str) -> None:
        super().__init__(f"{what} can't be stored as JSON: {path} {reason}")
        self.path = path
        self.reason = reason


class UniqueInputDataConstraintError(WorkerbeeError, ValueError):
    """``add_job(s)`` was given input that the jobset has already; none of that call's jobs was added."""

    def __init__(self, jobset_id: str, input_data: object, *, by_id: bool) -> None:
        same = "the same 'id' as" if by_id else "equal to"
        super().__init__(
            f"input_data {input_data!r:.500} is {same} another job's in the jobset {jobset_id!r}; "
            "none of this call's jobs was added"
        )
        self.input_data = input_data


#: PostgreSQL's code for what the encoding of a database or of a client lacks.
UNTRANSLATABLE = "22P05"


class EncodingError(WorkerbeeError, pickle.PicklingError, TypeError):
    """A function, its arguments or a result can't be pickled or stored; ``culprit`` names the part that can't."""

    def __init__(self, what: str, cause: BaseException, culprit: str | None = None) -> None:
        super().__init__(f"{what} {_refusal(cause, culprit)}")


def _refusal(cause: BaseException, culprit: str | None) -> str:
    """Say why something can't be pickled, or why the server doesn't take it, and what to do."""
    code, text = getattr(cause, "pgcode", None), text_of(cause).strip()
    if code == UNTRANSLATABLE:
        return (
            f"can't be stored: the encoding of this database lacks a character ({text}); make a database with "
            "ENCODING 'UTF8', or use names and values without it"
        )
    if code is not None:
        return f"can't be stored: the server refuses it ({type(cause).__name__}: {text})"
    where = f": {culprit}" if culprit else ""
    return (
        f"can't be pickled ({type(cause).__name__}: {text}){where}; pass what it is made from, such as a path or plain "
        "data, and open or build it inside the job"
    )


class PayloadTooLargeError(EncodingError):
    """Arguments, a result or a function over the limit of bytes, found before its ``size`` is known or after."""

    def __init__(self, what: str, size: int | None, limit: int) -> None:
        known = "" if size is None else f" ({size / 1e6:.0f} MB)"
        WorkerbeeError.__init__(
            self,
            f"the limit of {limit / 1e6:.0f} MB is exceeded by {what}{known}; store it in a file or an object store "
            "and pass its path, or raise the limit with max_payload",
        )


class SignatureError(WorkerbeeError):
    """The content of a row was not signed by this jobset's key, or has been changed since."""

    def __init__(self, job: int) -> None:
        super().__init__(
            f"the signature of job {job} doesn't hold: it was written without the jobset's key, or changed; find out "
            "who else can write to this database, and submit the call again"
        )


class KeyFileError(WorkerbeeError):
    """The key file can't be used; ``reason`` says why and what to do."""

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"the key file {path} {reason}")


class KeyMismatchError(WorkerbeeError):
    """The jobset was signed with another key than this process has (``ours``); ``path`` is where theirs was found."""

    def __init__(self, jobset_id: str, theirs: str, ours: str | None, path: object = None) -> None:
        mine = f"this process has key {ours}" if ours else "this process has no key"
        lost = "copy the key file of the user who made the jobset and name it by WORKERBEE_KEY_FILE; where that key is "
        lost += f"lost, go on by: workerbee key renew {jobset_id}"
        advice = lost if path is None else f"theirs is in {path}, go on with it by WORKERBEE_KEY_FILE={path}"
        super().__init__(f"the jobset {jobset_id!r} was signed with key {brief(theirs)}, and {mine}; {advice}")
        self.ours = ours


class FunctionUnavailable(WorkerbeeError):  # noqa: N818 (a state of this bee rather than an error)
    """This process can't run the function; its jobs are left to bees that can."""


class FunctionUnsigned(FunctionUnavailable):
    """The record of a function wasn't signed with the key file here, at ``path``, if there is one at all."""

    def __init__(self, path: object, fingerprint: str | None) -> None:
        other = f"its signature doesn't hold with the key {fingerprint} in {path}: it was made with another, or forged"
        here = f"no key file at {path}" if fingerprint is None else other
        super().__init__(
            f"{here}; copy the one of who submits (there, workerbee key show says where it is), or name it by "
            "WORKERBEE_KEY_FILE"
        )


class FunctionOutdated(FunctionUnavailable):
    """This process has imported the module of the function before it was changed, or jobs have spoilt it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} can't be had in this process any more, but may be in a new one")


class ConnectionStringError(WorkerbeeError, ValueError):
    """libpq can't read the connection string, which isn't shown, as it may hold a password."""

    def __init__(self) -> None:
        super().__init__(
            "the connection string can't be read; write it as 'host=… port=… user=… dbname=…', with quotes around "
            "a value with spaces, or as postgresql://user@host:port/dbname"
        )


class DatabaseUnavailableError(WorkerbeeError, ConnectionError):
    """The database can't be reached, or hasn't come back within ``reconnect_timeout``.

    ``hopeless``: no patience will help, it refuses us. ``stranger``: nobody at this address has answered so far.
    """

    hopeless = stranger = False  # for pickles of an older version, which don't have them

    def __init__(self, message: str, *, hopeless: bool = False, stranger: bool = False) -> None:
        super().__init__(message)
        self.hopeless = hopeless
        self.stranger = stranger


class UnsupportedDatabaseError(WorkerbeeError):
    """The server or the schema in it doesn't fit this version of Workerbee."""


class EmbeddedServerError(WorkerbeeError):
    """No server was named, and the embedded one can't be had."""


class BrokenWorkerbeeError(BrokenProcessPool):
    """The executor can't go on; every pending future has this, with the reason as its cause."""


class InitializerFailedError(BrokenWorkerbeeError):
    """The executor's ``initializer`` raised in a local runner."""


class RunnerDiedError(BrokenProcessPool):
    """This job's runner died again and again; the job is blamed, and the executor goes on."""
