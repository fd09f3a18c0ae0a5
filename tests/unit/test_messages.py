"""What a supervisor and a runner say to each other arrives as it was said."""

from __future__ import annotations

import marshal
from typing import Any

import pytest

from workerbee.bee.messages import (
    Become,
    CallMessage,
    Finished,
    Forget,
    Learn,
    Outdated,
    Perform,
    Quit,
    Settled,
    Telling,
    Unusable,
    done,
    parse,
    plain,
    told,
)
from workerbee.wire.job import EndKind

CALL = CallMessage(7, 1, 1, 1, "json", b"{}", b"mac")


def travelled(message: tuple[Any, ...]) -> Any:
    return marshal.loads(marshal.dumps(message))


@pytest.mark.parametrize(
    "telling",
    [
        Become(b"program"),
        Learn(1, "uuid", 3, (3, b"digest", "name"), is_fresh=False),
        Forget(1, 3),
        Perform(1, 3, [tuple(CALL)]),
        Settled(),
        Quit(),
    ],
)
def test_what_a_supervisor_tells(telling: Telling) -> None:
    """Of the type that it was."""
    heard = told(travelled(plain(telling)))
    assert heard == telling
    assert type(heard) is type(telling)


@pytest.mark.parametrize("message", [Unusable(1, 3, "why", None), Unusable(1, 3, "why", b"{}"), Outdated()])
def test_what_a_runner_refuses(message: Unusable | Outdated) -> None:
    heard = parse(travelled(plain(message)))
    assert heard == message
    assert type(heard) is type(message)


def test_how_jobs_end() -> None:
    """As one of the kinds that a runner knows."""
    kinds = (EndKind.COMPLETED, EndKind.FAILED, EndKind.ERROR, EndKind.RECALLED)
    ends = [Finished(n, kind, "json", b"1", None, 0.5) for n, kind in enumerate(kinds)]
    heard = parse(travelled(done(ends)))
    assert heard == ends
    assert [end.kind for end in heard] == list(kinds)  # type: ignore[union-attr]
