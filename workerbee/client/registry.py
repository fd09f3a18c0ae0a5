"""The registry: the functions of one jobset as a client stores them, and the identity that each counts as.

A user may declare that other code is the same function, by a ``version`` or by `Registry.adopt`. Then completed jobs
stay, and jobs that wait or are run anew run the new code. A call is signed for the function that it was submitted with,
so a signed record (`records`) says which other code may run it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from uuid import uuid4

from workerbee.store import ClientStore
from workerbee.wire import function_records, functions
from workerbee.wire.job import FunctionRow, Jobset, StoredFunction
from workerbee.wire.signing import Signer

#: Jobs of superseded code get a priority that is lower by ``BEHIND``; any below ``SUPERSEDED`` is such a priority.
BEHIND, SUPERSEDED = 2**30, -(2**29)


#: Functions whose stored numbers are remembered; and the functions, and bytes, in one statement.
MOST_KNOWN, PORTION_FUNCTIONS, PORTION_BYTES = 20_000, 200, 1_000_000
#: Seconds that a submit waits for the remark on what has changed, and that finding it out may take.
GLANCE_SECONDS, PATIENCE_SECONDS = 0.1, 30.0


class Registered(NamedTuple):
    """A function as it is stored: the record's number and digest, and the identity that it counts as."""

    number: int
    digest: bytes
    identity: bytes


class Registry:
    """Stores functions over one connection; used by one thread."""

    def __init__(self, store: ClientStore, jobset: Jobset, signer: Signer, log: logging.Logger) -> None:
        self._store = store
        self._jobset = jobset
        self._signer = signer
        self._log = log
        self._known: dict[tuple[bytes, bytes], Registered] = {}

    def forget(self) -> None:
        """Forget what is known of functions, as something was adopted. Any thread may call this."""
        self._known = {}

    def register(self, function: functions.Function) -> Registered:
        """Store the function, if it wasn't before, and say as what it is stored."""
        key = function.digest, function.identity
        registered = self._known.get(key)
        if registered is None:
            registered = self._known[key] = self._register(function)
        return registered

    def register_all(self, several: Iterable[functions.Function]) -> None:
        """Store many functions without looking for other versions: closures and partials come by the thousand."""
        if len(self._known) > MOST_KNOWN:
            self._known = {}
        new = {}
        for function in several:
            key = function.digest, function.identity
            if key not in self._known and not self._has_versions(function):
                new[key] = function
        for portion in _portions(new.values()):
            self._store.parts.put_values(value for f in portion for value in f.taken)
            numbers = self._store.put_functions({self._record(f): f.identity for f in portion})
            for f in portion:
                self._known[f.digest, f.identity] = Registered(numbers[f.digest], f.digest, f.identity)

    def _has_versions(self, function: functions.Function) -> bool:
        return not self._jobset.is_temporary and (function.named or function_records.is_by_word(function.codec))

    def _register(self, function: functions.Function) -> Registered:
        if not self._has_versions(function):
            return Registered(self._put(function), function.digest, function.identity)
        rows = self._store.versions(function.name)
        counted = _counting(function, self._identity(function, rows))
        number = self._put(counted)
        rows = [row for row in rows if row.codec != function_records.ADOPTED and row.number != number]
        if rows:
            self._look_back(number, counted, rows)
        return Registered(number, counted.digest, counted.identity)

    def _put(self, function: functions.Function) -> int:
        self._store.parts.put_values(function.taken)
        return self._store.put_function(self._record(function), function.identity)

    def _record(self, function: functions.Function) -> FunctionRow:
        mac = self._signer.sign_function(function.codec, function.digest, function.body)
        return FunctionRow(0, function.digest, function.name, function.codec, function.body, function.python, mac)

    # What it counts as

    def _identity(self, function: functions.Function, rows: Iterable[StoredFunction]) -> bytes:
        """Give the identity that a function counts as: its own, unless its user has said otherwise."""
        digest = function_records.adoption(function.identity)
        said = next((row.number for row in rows if row.digest == digest), None)
        record = None if said is None else self._signed(said)
        return function.identity if record is None else record.body

    def _signed(self, number: int) -> FunctionRow | None:
        """Read a stored record; None if its signature doesn't hold."""
        record = self._store.get_function(number)
        if record is None:
            return None
        whole = self._signer.verify_function(record.mac, record.codec, record.digest, record.body)
        return record if whole else None

    def adopt(self, function: functions.Function, *, only_new: bool = False) -> bool:
        """Have a function count as the version of it that was stored last; False if there is no other.

        ``only_new``: not if it was stored as a version of its own.

        Raises ValueError for what can't be told from others by its name.
        """
        if not function_records.is_by_word(function.codec):
            if not function.named:
                raise ValueError(
                    f"{function.name} may be one of several functions of that name; say which are the same by "
                    "with_options(version=…)"
                )
            rows = [row for row in self._store.versions(function.name) if row.codec != function_records.ADOPTED]
            others = [row for row in rows if row.identity != function.identity]
            if not others or (only_new and len(others) < len(rows)):
                return False
            digest = function_records.adoption(function.identity)
            identity = others[-1].identity
            mac = self._signer.sign_function(function_records.ADOPTED, digest, identity)
            record = FunctionRow(0, digest, function.name, function_records.ADOPTED, identity, function.python, mac)
            self._store.put_adoption(record, identity)
        self.forget()
        self.register(function)
        return True

    # What other code has left

    def _look_back(self, number: int, function: functions.Function, rows: list[StoredFunction]) -> None:
        same = [row for row in rows if row.identity == function.identity]
        others = [row for row in rows if row.identity != function.identity]
        self._store.reprioritise([number, *(row.number for row in same)], SUPERSEDED, BEHIND)
        if same and function_records.is_by_word(function.codec):
            waiting = set(self._store.waiting_functions(row.number for row in same))
            self._store.hand_over(self._stand_ins(number, function, [row for row in same if row.number in waiting]))
        if others and function.named:
            n_behind = self._store.reprioritise([row.number for row in others], SUPERSEDED, -BEHIND)
            keeps_results = same and function_records.is_by_word(function.codec)
            if not keeps_results:
                self._say_what_changed(function, others[-1], n_behind)

    def _say_what_changed(self, function: functions.Function, other: StoredFunction, n_behind: int) -> None:
        """Remark that the function has changed, and how much is left aside; don't wait long for the counting."""
        arguments = (function, other, n_behind)
        thread = threading.Thread(target=self._count_and_say, args=arguments, name="workerbee changes", daemon=True)
        thread.start()
        thread.join(GLANCE_SECONDS)

    def _count_and_say(self, function: functions.Function, other: StoredFunction, n_behind: int) -> None:
        n_aside = self._left_aside(function)
        if n_aside == 0 and n_behind == 0:
            return
        name = function.name.rpartition(":")[2]
        mended = f"; if it was only mended, executor.adopt({name}) keeps them, and the rest runs the new code"
        self._log.warning(
            "%s has changed (%s) since it was last used in %s: it computes anew; %s stored results are left aside, and "
            "%d jobs that wait go last (executor.cancel_superseded() cancels them)%s",
            function.name,
            "its Python" if other.python != function.python else "its code or what it names",
            self._jobset.name,
            "their" if n_aside is None else n_aside,
            n_behind,
            "" if function_records.is_by_word(function.codec) else mended,
        )

    def _left_aside(self, function: functions.Function) -> int | None:
        """Count the results that other code has left; None if it can't be told in time."""
        connection = self._store.connection.another("workerbee changes")
        connection.patience = PATIENCE_SECONDS
        try:
            return ClientStore(connection, self._jobset, uuid4()).left_aside(function.name, function.identity)
        except Exception:  # noqa: BLE001 (it is for a sentence only)
            return None
        finally:
            connection.close()

    # Which code runs what

    def stand_ins(self, function: functions.Function, numbers: Iterable[int]) -> dict[int, int]:
        """Store records that have calls of these functions run the code of this one. Returns their numbers."""
        registered = self.register(function)
        wanted = set(numbers) - {registered.number}
        if not wanted:
            return {}
        rows = [row for row in self._store.versions(function.name) if row.number in wanted]
        return self._stand_ins(registered.number, _counting(function, registered.identity), rows)

    def _stand_ins(self, number: int, function: functions.Function, rows: Iterable[StoredFunction]) -> dict[int, int]:
        found: dict[int, int] = {}
        for row in rows:
            signed_for = function_records.calls(row.codec) or row.digest
            if signed_for == function.digest:
                found[row.number] = number
            else:
                codec = function_records.standing_in(function.codec, signed_for)
                found[row.number] = self._put(functions.recoded(function, codec))
        return found

    def current(self, chosen: Sequence[StoredFunction]) -> dict[int, int]:
        """Find for each of these functions the newest code that a user has declared to be the same."""
        found: dict[int, int] = {}
        for identity, newest in {row.identity: row for row in chosen}.items():
            rows = [row for row in chosen if row.identity == identity and row.number != newest.number]
            if rows and any(function_records.is_by_word(row.codec) for row in (newest, *rows)):
                function = self._restored(newest)
                if function is not None:
                    found |= self._stand_ins(newest.number, function, rows)
        return found

    def _restored(self, row: StoredFunction) -> functions.Function | None:
        """Read a function as a client has stored it; None if it isn't signed, or parts are missing."""
        record = self._signed(row.number)
        if record is None or record.digest != functions.digest(record.name, record.codec, record.body, record.python):
            return None
        function = functions.Function(
            record.name,
            row.identity,
            memo=True,
            digest=record.digest,
            codec=record.codec,
            body=record.body,
            python=record.python,
        )
        own, _, stands_in = record.codec.partition(";calls=")
        return functions.recoded(function, own) if stands_in else function


def _portions(several: Iterable[functions.Function]) -> Iterator[list[functions.Function]]:
    """Divide functions into portions of what one statement may carry."""
    portion: list[functions.Function] = []
    size = 0
    for function in several:
        if portion and (len(portion) == PORTION_FUNCTIONS or size + len(function.body) > PORTION_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(function)
        size += len(function.body)
    if portion:
        yield portion


def _counting(function: functions.Function, identity: bytes) -> functions.Function:
    """Give the function with the identity that it counts as."""
    if identity == function.identity:
        return function
    codec = function_records.counting(function.codec, identity)
    return functions.recoded(function._replace(identity=identity), codec)
