"""The tree of exceptions: as it is drawn, so it is; and each sentence says what to do."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
from concurrent.futures import BrokenExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

import workerbee
from workerbee import errors
from workerbee.wire import failures

OURS = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, BaseException) and cls.__module__ == errors.__name__
}


def drawn() -> dict[str, set[str]]:
    """The bases of each class in the docstring's tree."""
    assert errors.__doc__ is not None
    tree, above = {}, []
    for line in errors.__doc__.splitlines():
        found = re.match(r"    ([│ ]*(?:[├└]── )?)([\w.]+)(?: \(([\w, ]+)\))?(?: {2,}|$)", line)
        if found:
            depth = len(found[1]) // 4
            name = found[2].rpartition(".")[2]
            above[depth:] = [name]
            if depth:
                also = set(filter(None, (found[3] or "").split(", ")))
                tree[name] = also if also and above[depth - 1] == "Exception" else also | {above[depth - 1]}
    return tree


def test_the_tree_is_as_drawn() -> None:
    """Each class is in the drawing, under the bases that it has, and no other is."""
    assert drawn() == {name: {base.__name__ for base in cls.__bases__} for name, cls in OURS.items()}


def test_all_exceptions_are_in_the_tree() -> None:
    """No other room defines an exception, but for those that never leave it."""
    package = Path(workerbee.__file__).parent
    private = {"GarbledError", "Leaving", "Mistake", "NothingSeenError", "Refusal", "_HasNone"}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and path.name != "errors.py":
                bases = {getattr(base, "id", getattr(base, "attr", "")) for base in node.bases}
                raised = any(base.endswith(("Error", "Exception")) for base in bases)
                assert not raised or node.name in private, f"{node.name} in {path.name} belongs into errors.py"


FACTS: dict[str, tuple[Exception, str]] = {
    "id": (errors.JobsetIdError("Not An Id"), r"'Not An Id' can't name a jobset: use a str of 1 to 48"),
    "taken id": (
        errors.JobsetIdError("a", "view"),
        r"'a' can't name a jobset here: .* a view .* choose another jobset_id",
    ),
    "exists": (errors.JobsetExistsError("a"), r"'a' exists already; pass ignore_existing_jobset=True"),
    "missing": (errors.JobsetNotFoundError("a"), r"'a' doesn't exist \(this database has no jobsets\); create it"),
    "others": (errors.JobsetNotFoundError("a", ("b", "c")), r"jobsets here: b, c\); create it with setup_jobset"),
    "dropped": (errors.JobsetNotFoundError("a", dropped=True), r"was dropped while it was in use"),
    "lost": (errors.JobLostError("a", 7), r"job 7 of a is in the database no more: .* submit the call again"),
    "input": (
        errors.InputDataError("it", "it['a']", "is odd; use a string"),
        r"it can't be stored as JSON: it\['a'\] is",
    ),
    "same": (errors.UniqueInputDataConstraintError("a", {"x": 1}, by_id=False), r"\{'x': 1\} is equal to .* none of"),
    "same id": (
        errors.UniqueInputDataConstraintError("a", {"id": 1}, by_id=True),
        r"is the same 'id' as another job's",
    ),
    "encoding": (errors.EncodingError("it", ValueError("v")), r"it can't be pickled \(ValueError: v\); pass what"),
    "large": (
        errors.PayloadTooLargeError("it", 3 * 10**8, 10**6),
        r"the limit of 1 MB is exceeded by it \(300 MB\); store it",
    ),
    "signature": (errors.SignatureError(7), r"signature of job 7 doesn't hold: .*; find out .*submit the call again"),
    "key file": (errors.KeyFileError("/k", "is odd; do this"), r"the key file /k is odd; do this"),
    "key": (errors.KeyMismatchError("a", "123", "456"), r"key 123, and this process has key 456; copy the key file"),
    "a key that is none": (errors.KeyMismatchError("a", "x\n" * 99, None), r"key '(x\\n){20}'…, and this process"),
    "no key": (errors.KeyMismatchError("a", "123", None), r"this process has no key; .*WORKERBEE_KEY_FILE"),
}


@pytest.mark.parametrize(("error", "text"), FACTS.values(), ids=FACTS)
def test_a_sentence_says_what_to_do(error: Exception, text: str) -> None:
    """Constructors take facts, and make one sentence of them."""
    assert re.search(text, str(error)), str(error)


@pytest.mark.parametrize("error", [error for error, _ in FACTS.values()], ids=FACTS)
def test_errors_can_be_sent(error: Exception) -> None:
    """Pickled, copied, or raised by a job, each comes back with its type, its sentence and its facts."""
    pickled = pickle.loads(pickle.dumps(error))
    returned = failures.decode_error(failures.encode_error(error), trusted=True)
    for again in (pickled, copy.copy(error), returned):
        assert type(again) is type(error)
        assert str(again) == str(error)
        notes = {"__notes__"}
        assert {k: v for k, v in vars(again).items() if k not in notes} == vars(error)


def test_all_classes_have_a_docstring() -> None:
    """What each one means can be read."""
    assert [name for name, cls in OURS.items() if not cls.__doc__] == []


@pytest.mark.parametrize(
    ("cls", "bases"),
    [
        (errors.JobFailedError, (ValueError,)),
        (errors.UniqueInputDataConstraintError, (ValueError,)),
        (errors.JobsetIdError, (ValueError, TypeError)),
        (errors.JobsetNotFoundError, (LookupError,)),
        (errors.EncodingError, (pickle.PicklingError, TypeError)),
        (errors.DatabaseUnavailableError, (ConnectionError, OSError)),
        (errors.BrokenWorkerbeeError, (BrokenProcessPool, BrokenExecutor, RuntimeError)),
        (errors.InitializerFailedError, (BrokenProcessPool, errors.BrokenWorkerbeeError)),
        (errors.RunnerDiedError, (BrokenProcessPool, BrokenExecutor, RuntimeError)),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_existing_except_clauses_hold(cls: type[Exception], bases: tuple[type[Exception], ...]) -> None:
    """Code that was written for a pool, or for the ancestor, catches ours."""
    assert all(issubclass(cls, base) for base in bases)


def test_a_jobs_failure_is_not_ours() -> None:
    """What a job raises isn't caught by who catches Workerbee's own errors."""
    for cls in (errors.JobFailedError, errors.RemoteError, errors.RunnerDiedError):
        assert not issubclass(cls, errors.WorkerbeeError)


def test_a_remote_error_is_the_facts() -> None:
    """Type, message and traceback are attributes, and survive a pickle."""
    error = pickle.loads(pickle.dumps(errors.RemoteError("m.T", "text", "Traceback …")))
    assert (error.type_name, error.message, error.traceback_text) == ("m.T", "text", "Traceback …")
    assert str(error) == "m.T: text"
    assert str(errors.RemoteError("m.T", "")) == "m.T"
