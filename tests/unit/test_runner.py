"""What a runner does with jobs, and above all what it doesn't: nothing unsigned is unpickled, called or imported."""

from __future__ import annotations

import gc
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from workerbee import program
from workerbee.bee.channel import Channel, Position
from workerbee.bee.messages import Finished, Forget, Learn, Perform, Quit, Recorded, Unusable, order, parse
from workerbee.bee.runner import Runner
from workerbee.errors import InputDataError, JobFailedError, PayloadTooLargeError, SignatureError
from workerbee.wire import codec, function_records, functions
from workerbee.wire.failures import decode_error
from workerbee.wire.job import NO_FUNCTION, FunctionRow
from workerbee.wire.signing import Key, Signer

JOBSET, NUMBER = UUID(int=7), 3
HERE = f"{__name__}:"
called: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_called() -> Iterator[None]:
    called.clear()
    yield
    called.clear()


def note(*args: Any, **kwargs: Any) -> Any:
    called.append((args, kwargs))
    return args[0] if args else None


def other(*args: Any) -> Any:
    called.append(("other", args))
    return "other"


class Bomb:
    """Says so when it is unpickled."""

    def __reduce__(self) -> Any:
        return called.append, ("unpickled",)


class SupervisorEnd:
    """The supervisor's end, with a client's means: one batch of jobs for one runner in this process."""

    def __init__(self, key: Key | None = None) -> None:
        self.ours, theirs = map(Channel, socket.socketpair())
        self.theirs = theirs
        self.mark = Position.create()
        self.signer = Signer(key or Key.load_or_make(), JOBSET)
        self.n = 0

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        self.mark.close()

    def record(self, fn: Callable[..., Any], **changes: Any) -> FunctionRow:
        """A function's row as its client would sign it, and then perhaps changed."""
        made = functions.Cache().describe(fn)
        mac = self.signer.sign_function(made.codec, made.digest, made.body)
        return FunctionRow(NUMBER, made.digest, made.name, made.codec, made.body, made.python, mac)._replace(**changes)

    def know(self, record: FunctionRow) -> None:
        self.ours.send(order(Learn(1, str(JOBSET), record.number, tuple(record))))

    def call(self, record: FunctionRow | None, *args: Any, **changes: Any) -> tuple[Any, ...]:
        """A job as it is sent; without a record unsigned, as add_job makes it."""
        call = codec.encode_call(args, {})
        self.n += 1
        mac = record and self.signer.sign_call(self.n, call.codec, record.digest, call.data)
        facts = {"n": self.n, "job": self.n, "run": 1, "attempt": 1, "codec": call.codec, "data": call.data, "mac": mac}
        return tuple((facts | changes).values())

    def give(self, number: int, *calls: tuple[Any, ...]) -> None:
        self.ours.send(order(Perform(1, number, list(calls))))

    def serve(self, **options: Any) -> list[Any]:
        """Run what was given; what is said of it."""
        self.ours.send(order(Quit()))
        Runner(self.theirs, self.mark, bee="b", **options).serve()
        return self.heard()

    def heard(self) -> list[Any]:
        return [parse(frame) for frame in self.ours.arrived() or []]

    def ends(self, **options: Any) -> list[Finished]:
        return [end for said in self.serve(**options) if isinstance(said, list) for end in said]

    def error(self, end: Finished) -> BaseException:
        """The exception of an end, whose signature must hold if it has one."""
        assert end.codec == "error"
        signed = self.signer.verify_end(end.mac, end.n, 1, "error", end.data, is_value=False)
        assert signed == (end.mac is not None)
        return decode_error(end.data, trusted=signed)


@pytest.fixture
def bee() -> Iterator[SupervisorEnd]:
    made = SupervisorEnd()
    yield made
    made.close()


# Signed functions


def test_a_signed_call_is_run_and_signed(bee: SupervisorEnd) -> None:
    """JSON and pickled calls of a signed function run, and their results are signed for their job and run."""
    record = bee.record(note)
    bee.know(record)
    bee.give(NUMBER, bee.call(record, {"x": 1}), bee.call(record, (1, 2)), bee.call(record, 5, run=4))
    ends = bee.ends()
    assert [codec.decode(e.codec, e.data) for e in ends] == [{"x": 1}, (1, 2), 5]
    for end, run in zip(ends, (1, 1, 4), strict=True):
        assert end.kind == "completed"
        assert bee.signer.verify_end(end.mac, end.n, run, end.codec, end.data, is_value=True)
        assert not bee.signer.verify_end(end.mac, end.n, run + 1, end.codec, end.data, is_value=True)


FORGED: dict[str, dict[str, Any]] = {
    "no signature": {"mac": None},
    "a signature of nothing": {"mac": bytes(16)},
    "other arguments": {"data": b'{"x":2}'},
    "another job": {"job": 99},
    "another codec": {"codec": "json_call", "data": b'{"args":[1],"kwargs":{}}'},
    "a pickle": {"codec": "pickle", "data": pickle.dumps(Bomb())},
    "an unsigned pickle": {"codec": "pickle", "data": pickle.dumps(Bomb()), "mac": None},
    "an unknown codec": {"codec": "PICKLE", "data": pickle.dumps(Bomb())},
}


@pytest.mark.parametrize("changes", FORGED.values(), ids=FORGED)
def test_a_forged_call_is_not_run(bee: SupervisorEnd, changes: dict[str, Any]) -> None:
    """Whatever was changed in a job's row: nothing is unpickled or called, and the job fails by that name."""
    record = bee.record(note)
    bee.know(record)
    bee.give(NUMBER, bee.call(record, {"x": 1}, **changes))
    [end] = bee.ends()
    assert end.kind == "error"
    record_of_error = json.loads(end.data)
    assert record_of_error["type"] == "workerbee.errors.SignatureError"
    assert not called


def test_a_call_of_another_function_is_not_run(bee: SupervisorEnd) -> None:
    """A signed call is good for its function alone."""
    one, two = bee.record(note), bee.record(other)._replace(number=4)
    bee.know(one)
    bee.know(two)
    bee.give(4, bee.call(one, {"x": 1}))
    [end] = bee.ends()
    assert isinstance(bee.error(end), SignatureError)
    assert not called


RECORDS: dict[str, dict[str, Any]] = {
    "no signature": {"mac": b""},
    "another body": {"body": b"os:system"},
    "a pickle": {"codec": "pickle", "body": pickle.dumps(Bomb())},
    "another name": {"name": "os:system"},
    "another Python": {"python": "3.9"},
    "another digest": {"digest": bytes(16)},
}


@pytest.mark.parametrize("changes", RECORDS.values(), ids=RECORDS)
def test_a_forged_function_is_not_loaded(bee: SupervisorEnd, changes: dict[str, Any]) -> None:
    """Whatever was changed in a function's row: it isn't loaded, and its jobs are left to others."""
    record = bee.record(note)
    bee.know(record._replace(**changes))
    bee.give(NUMBER, bee.call(record, {"x": 1}))
    unusable, ends = bee.serve()
    assert unusable[:2] == (1, NUMBER)
    assert "signature" in unusable.reason
    assert [e.kind for e in ends] == ["recalled"]
    assert not called


def test_no_module_is_imported_for_a_forged_row(
    bee: SupervisorEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of a module in a row that isn't signed leads to no import, also in a bee with --function."""
    (tmp_path / "imported_by_a_row.py").write_text("def f(x): return x")
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "imported_by_a_row:f"
    bee.know(bee.record(note, name=name, body=name.encode()))
    bee.give(NUMBER, bee.call(None, {"x": 1}))
    bee.serve(named=[HERE + "other"])
    assert "imported_by_a_row" not in sys.modules


def test_a_bee_without_the_key_runs_no_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, or another user's: the executor's jobs are left to others."""
    for key_file in (os.environ["WORKERBEE_KEY_FILE"] + ".none", os.environ["WORKERBEE_KEY_FILE"]):
        monkeypatch.setenv("WORKERBEE_KEY_FILE", key_file)
        Key.load_or_make() if not key_file.endswith(".none") else None
        bee = SupervisorEnd(Key(bytes(32)))
        record = bee.record(note)
        bee.know(record)
        bee.give(NUMBER, bee.call(record, {"x": 1}))
        assert [type(said) for said in bee.serve()] == [Unusable, list]
        bee.close()
    assert not called


def test_a_failing_initializer_makes_the_function_unusable(bee: SupervisorEnd) -> None:
    """Its error goes along, so that a client's own bee can break the executor with it."""
    made = functions.Cache(other_raises).describe(note)
    mac = bee.signer.sign_function(made.codec, made.digest, made.body)
    record = FunctionRow(NUMBER, made.digest, made.name, made.codec, made.body, made.python, mac)
    bee.know(record)
    bee.give(NUMBER, bee.call(record, 1))
    unusable, _ = bee.serve()
    assert isinstance(decode_error(unusable.error, trusted=True), ZeroDivisionError)
    assert not called


def other_raises() -> None:
    raise ZeroDivisionError


def test_calls_run_the_code_that_stands_in_for_theirs(bee: SupervisorEnd) -> None:
    """If that was signed; else, and without such a record, no other code than what they were signed for."""
    theirs = bee.record(other)
    stands_in = functions.recoded(
        functions.Cache().describe(note), function_records.standing_in("import", theirs.digest)
    )
    mac = bee.signer.sign_function(stands_in.codec, stands_in.digest, stands_in.body)
    record = bee.record(note)._replace(digest=stands_in.digest, codec=stands_in.codec, mac=mac)
    forged = record._replace(number=NUMBER + 1, codec=function_records.standing_in("import", bytes(16)))
    for known in (record, forged, bee.record(note, number=NUMBER + 2)):
        bee.know(known)
        bee.give(known.number, bee.call(theirs, {"x": known.number}))
    messages = bee.serve()
    assert called == [(({"x": NUMBER},), {})]
    ends = [end for said in messages if isinstance(said, list) for end in said]
    assert [e.kind for e in ends] == ["completed", "recalled", "error"]
    assert isinstance(bee.error(ends[2]), SignatureError)


# Jobs without a function, and --function


def test_jobs_without_a_function_need_one_to_be_named(bee: SupervisorEnd) -> None:
    """A bee that was given no function leaves them to others."""
    bee.give(NO_FUNCTION, bee.call(None, {"x": 1}))
    unusable, ends = bee.serve()
    assert "--function" in unusable.reason
    assert [e.kind for e in ends] == ["recalled"]


def test_named_functions_run_unsigned_json(bee: SupervisorEnd) -> None:
    """The first one runs the jobs that bring none; results of unsigned jobs are JSON and unsigned."""
    bee.give(NO_FUNCTION, bee.call(None, {"x": 1}))
    bee.know(bee.record(other, mac=b""))
    bee.give(NUMBER, bee.call(None, 1, 2))
    ends = bee.ends(named=[HERE + "note", HERE + "other"])
    assert [(e.codec, e.data, e.mac) for e in ends] == [("json", b'{"x":1}', None), ("json", b'"other"', None)]
    assert called == [(({"x": 1},), {}), ("other", (1, 2))]


@pytest.mark.parametrize("options", [{"own": note}, {"named": [HERE + "note"]}], ids=["JobSet.run", "--function"])
def test_jobs_without_a_function_are_never_unpickled(bee: SupervisorEnd, options: dict[str, Any]) -> None:
    """A pickle that somebody put into such a row stays one."""
    for name in ("pickle", "parts", "PICKLE", ""):
        bee.give(NO_FUNCTION, bee.call(None, 1, codec=name, data=pickle.dumps(Bomb())))
    ends = bee.ends(**options)
    assert [e.kind for e in ends] == ["error"] * 4
    assert all("SignatureError" in json.loads(e.data)["type"] for e in ends)
    assert not called


def test_a_named_function_takes_signed_pickles(bee: SupervisorEnd) -> None:
    """With the key, a function that the command line names runs signed calls as any bee does."""
    record = bee.record(note)
    bee.know(record)
    bee.give(NUMBER, bee.call(record, (1, 2)), bee.call(None, 1, codec="pickle", data=pickle.dumps(Bomb())))
    done, forged = bee.ends(named=[HERE + "note"])
    assert codec.decode(done.codec, done.data) == (1, 2)
    assert bee.signer.verify_end(done.mac, done.n, 1, done.codec, done.data, is_value=True)
    assert isinstance(bee.error(forged), SignatureError)
    assert called == [(((1, 2),), {})]


def test_a_named_function_leaves_pickles_that_it_can_not_verify(bee: SupervisorEnd) -> None:
    """Without the key its pickled calls are for other bees; they are not failed."""
    bee.know(bee.record(note, mac=b""))
    bee.give(NUMBER, bee.call(None, (1, 2)))
    unusable, ends = bee.serve(named=[HERE + "note"])
    assert "key" in unusable.reason
    assert [e.kind for e in ends] == ["recalled"]
    assert not called


def test_a_named_function_that_is_not_here_is_said(bee: SupervisorEnd) -> None:
    """A misspelt --function makes the jobs unusable, not failed."""
    bee.give(NO_FUNCTION, bee.call(None, {"x": 1}))
    unusable, _ = bee.serve(named=["no_such_module:f"])
    assert "no_such_module:f can't be imported here" in unusable.reason


# Results


def test_a_result_over_the_limit_fails_its_job(bee: SupervisorEnd) -> None:
    """The job fails with what to do, and the runner goes on."""
    record = bee.record(note)
    bee.know(record)
    bee.give(NUMBER, bee.call(record, "x" * 200), bee.call(record, 1))
    large, small = bee.ends(max_payload=100)
    assert large.kind == "error"
    error = bee.error(large)
    assert isinstance(error, PayloadTooLargeError)
    assert "the result" in str(error)
    assert "max_payload" in str(error)
    assert small.kind == "completed"


def test_a_large_result_is_warned_of_once(bee: SupervisorEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a function, not once a job."""
    monkeypatch.setattr(codec, "WARN_BYTES", 100)
    record = bee.record(note)
    bee.know(record)
    bee.give(NUMBER, *(bee.call(record, "x" * 200) for _ in range(3)))
    with pytest.warns(UserWarning, match=r"a result of note takes .* pass its path") as warned:
        ends = bee.ends()
    assert [e.kind for e in ends] == ["completed"] * 3
    assert len(warned) == 1


def test_a_result_that_can_not_be_stored_fails_its_job(bee: SupervisorEnd) -> None:
    """Unpicklable under an executor, not JSON for a job without a function: each says which."""
    bee.give(NO_FUNCTION, bee.call(None, {"x": 1}))
    [end] = bee.ends(named=[HERE + "gives_a_set"])
    assert json.loads(end.data)["type"] == f"{InputDataError.__module__}.InputDataError"
    assert "builtins.set" in json.loads(end.data)["message"]


def gives_a_set(_: Any) -> Any:
    return {1}


def test_an_error_says_where_it_came_from(bee: SupervisorEnd) -> None:
    """Job, attempt, bee and host are notes of the exception."""
    record = bee.record(retries)
    bee.know(record)
    bee.give(NUMBER, bee.call(record, 1, attempt=3))
    [end] = bee.ends()
    assert end.kind == "failed"
    assert isinstance(bee.error(end), JobFailedError)
    assert json.loads(end.data)["notes"] == [f"job 1, attempt 3, bee b, host {socket.gethostname()}"]


def retries(_: Any) -> None:
    raise JobFailedError("again")


# The caller's own runner


def test_the_callers_exception_comes_out_once_it_is_recorded(bee: SupervisorEnd) -> None:
    """What the function of JobSet.run raises ends it, after the supervisor has said that it is stored."""

    def fails(data: dict[str, Any]) -> None:
        called.append(data)
        raise KeyError(data["x"])

    bee.give(NO_FUNCTION, *(bee.call(None, {"x": n}) for n in range(3)))
    got: list[Any] = []

    def settle() -> None:
        got.extend(parse(bee.ours.receive() or b""))
        bee.ours.send(order(Perform(1, NO_FUNCTION, [bee.call(None, {"x": 9})])))
        bee.ours.send(order(Recorded()))

    thread = threading.Thread(target=settle)
    thread.start()
    with pytest.raises(KeyError, match="0"):
        Runner(bee.theirs, bee.mark, bee="b", own=fails).serve()
    thread.join()
    assert [end.kind for end in got] == ["error"]
    rest = [end.kind for ends in bee.heard() for end in ends]
    assert rest == ["recalled"] * 3, "what had not begun is given back"
    assert called == [{"x": 0}]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_job_is_given_back(bee: SupervisorEnd, kind: type[BaseException]) -> None:
    """KeyboardInterrupt and SystemExit charge nothing, and come out at once."""

    def interrupted(_: Any) -> None:
        raise kind

    bee.give(NO_FUNCTION, bee.call(None, {"x": 1}), bee.call(None, {"x": 2}))
    with pytest.raises(kind):
        Runner(bee.theirs, bee.mark, bee="b", own=interrupted).serve()
    assert [end.kind for ends in bee.heard() for end in ends] == ["recalled", "recalled"]
    assert bee.mark.current()[0] == 0, "nobody is to be blamed"


# As a process


def test_a_runner_is_a_process_that_ends_with_its_channel(bee: SupervisorEnd) -> None:
    """The command as a supervisor starts it: it runs what it is given, and ends when the other end does."""
    pipes = [os.pipe() for _ in range(3)]
    ends = (bee.theirs.fileno(), bee.mark.fd, *(reader for reader, _ in pipes))
    command = program.command(
        "workerbee.bee.runner", os.getpid(), *ends, 1, "b", 100, *[""] * 3, "operator:neg", flags=()
    )
    process = subprocess.Popen(command, pass_fds=ends)
    bee.theirs.close()
    for fd in (fd for pipe in pipes for fd in pipe):
        os.close(fd)
    bee.give(NO_FUNCTION, bee.call(None, {"x": 1}))
    [end] = parse(bee.ours.receive() or b"")
    assert "TypeError" in end.data.decode(), "a dict can't be negated"
    bee.ours.close()
    assert process.wait(30) == 0


def test_nothing_is_kept_of_a_jobset_whose_functions_were_let_go(bee: SupervisorEnd) -> None:
    """Nor are the globals that they have shared; and what is forgotten twice does no harm."""
    runner = Runner(bee.theirs, bee.mark, bee="b")
    record = bee.record(note)
    for jobset in range(3):
        bee.ours.send(order(Learn(jobset, str(JOBSET), NUMBER, tuple(record))))
        for _ in range(2):
            bee.ours.send(order(Forget(jobset, NUMBER)))
    bee.ours.send(order(Quit()))
    runner.serve()
    assert not runner._work


class Large:
    """Stands for what a job has in memory; `called` says whether it is still there."""

    def __init__(self) -> None:
        called.append(weakref.ref(self))


def returns() -> int:
    large = Large()
    return len(vars(large))


def gives() -> Large:
    return Large()


def takes(large: Large) -> None:
    called.append(weakref.ref(large))


def raises() -> None:
    large = Large()
    raise ValueError(large)


def raises_again() -> None:
    try:
        raises()
    except ValueError as error:
        raise JobFailedError("large", Large()) from error


@pytest.mark.parametrize("fn", [returns, gives, takes, raises, raises_again])
def test_nothing_of_a_job_outlives_it(bee: SupervisorEnd, fn: Callable[..., Any]) -> None:
    """What it had in memory is free before the next one begins, without the garbage collector."""
    record = bee.record(fn)
    bee.know(record)
    bee.give(NUMBER, bee.call(record, *([Large()] if fn is takes else [])))
    gc.disable()
    try:
        assert len(bee.ends()) == 1
        assert len(called) > 0
        assert [seen() for seen in called] == [None] * len(called)
    finally:
        gc.enable()
