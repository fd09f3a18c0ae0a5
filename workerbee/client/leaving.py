"""The end of clients: at an interrupt, at the interpreter's exit, and in a fork."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import weakref
from functools import partial

from workerbee.client.client import Client
from workerbee.reading import Reading

#: After an interrupt, seconds to wait until queued calls are stored, and until the database has said what goes on.
PATIENCE_SECONDS, GLANCE_SECONDS = 1.0, 0.5

_clients: weakref.WeakSet[Client] = weakref.WeakSet()


def see_off(client: Client) -> None:
    """Have this client end properly at the interpreter's exit, and say what goes on when a session is interrupted."""
    _clients.add(client)
    client.on_interrupt = partial(_waiter_interrupted, client)


def _waiter_interrupted(client: Client, interrupt: BaseException) -> None:
    """Say what goes on in a notebook or a REPL, which may never leave the executor; a program says it there."""
    if hasattr(sys, "ps1") and not client.jobset.is_temporary:
        say_what_goes_on(client, interrupt)


def interrupted(client: Client, error: BaseException) -> None:
    """Let go of a client whose caller was interrupted, within two seconds; a second interrupt ends it at once."""
    try:
        say_what_goes_on(client, error)
        if client.jobset.is_temporary:
            client.abandon()
            client.ended.wait(PATIENCE_SECONDS)
        else:
            client.detach_and_close(PATIENCE_SECONDS)
    except KeyboardInterrupt:
        _end_at_once([client])
        raise


def say_what_goes_on(client: Client, error: BaseException) -> None:
    """Log a line that says what goes on, once for each interrupt."""
    if _is_told(error):
        return
    client.interrupted = True
    error._workerbee_told = True  # type: ignore[attr-defined]  # noqa: SLF001 (a mark on the interrupt itself)
    if client.jobset.is_temporary:
        client.log.warning("interrupted: what waits is cancelled, and what runs is stopped")
        return
    client.log.warning(
        "interrupted: of %s %s; until this executor is left it goes on with them, then it finishes what it runs and "
        "leaves the rest to bees elsewhere (%s). The same code attaches to them, executor.cancel() stops them, here or "
        "in any other process, and an interrupt while the executor is left ends it at once",
        client.jobset.name,
        *_state(client),
    )


def _is_told(error: BaseException) -> bool:
    return getattr(error, "_workerbee_told", False)


def _state(client: Client) -> tuple[str, str]:
    """Describe the jobs and the bees; say less if the database doesn't answer at once."""
    try:
        with client.reading(GLANCE_SECONDS) as connection:
            seen = Reading(connection, client.jobset, client.signer).glance()
    except Exception:  # noqa: BLE001 (an interrupt isn't the time for this)
        return "all that isn't done goes on", "the database doesn't answer now"
    n_elsewhere = max(0, seen["bees"] - bool(client.n_local))
    return f"{seen.get('waiting', 0)} jobs wait and {seen.get('running', 0)} run", f"{n_elsewhere} now"


def _end_at_once(clients: list[Client]) -> None:
    for client in clients:
        client.log.warning(
            "interrupted%s: %s ends at once; what it runs here is given back, and calls not stored yet are lost",
            " again" if client.interrupted else "",
            client.jobset.name,
        )
        client.quit()


def _at_exit() -> None:
    """At the interpreter's exit, wait for temporary jobsets, as for a process pool's work; durable ones go on alone."""
    clients = [client for client in _clients if not client.ended.is_set()]
    # The exception that has ended the program. In a session it is any that was shown last.
    cause = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
    try:
        for client in clients:
            if isinstance(cause, KeyboardInterrupt) and client.interrupted and not _is_told(cause):
                _end_at_once([client])
            elif isinstance(cause, KeyboardInterrupt):
                interrupted(client, cause)
            elif client.jobset.is_temporary:
                client.close()
            else:
                client.detach_and_close()
        for client in clients:
            client.ended.wait()
    except KeyboardInterrupt:
        _end_at_once([client for client in clients if not client.ended.is_set()])


def _after_fork() -> None:
    """In a forked child, disown the clients: their threads don't exist here."""
    for client in list(_clients):
        if not client.ended.is_set():
            client.disown()
    _clients.clear()


# Before the interpreter joins its threads and forbids new ones, as concurrent.futures itself does.
getattr(threading, "_register_atexit", atexit.register)(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
