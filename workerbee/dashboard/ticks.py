"""Answers to tabs that look again: those that show the same view at about the same time get the same one."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

#: Seconds for which an answer is given again, and answers that are kept.
FRESH, MOST = 0.5, 100


class Tick(NamedTuple):
    """An answer, and until when (monotonic) it is given again."""

    until: float
    status: int
    body: bytes
    headers: dict[str, str]


class Ticks:
    """Keeps answers for a moment, so that many tabs cost little more than one. Safe for threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Tick] = OrderedDict()

    def answer(self, request: Request, key: Hashable, view: Callable[[Request], Response]) -> Response:
        """Give what ``view`` answers, or answered a moment ago under this key; only its tag to who has it already."""
        tick = self._kept.get(key)
        if tick is None or time.monotonic() > tick.until:
            made = view(request)
            tick = Tick(time.monotonic() + FRESH, made.status_code, bytes(made.body), dict(made.headers))
            self._kept[key] = tick
            while len(self._kept) > MOST:
                self._kept.popitem(last=False)
        tag = tick.headers.get("etag")
        if tag is not None and tag == request.headers.get("if-none-match"):
            return Response(status_code=304, headers={"ETag": tag, "Vary": tick.headers["vary"]})
        return Response(tick.body, tick.status, tick.headers)
