"""Pickling that stops at a limit."""

from __future__ import annotations

import io
from typing import Any, NoReturn

from workerbee.errors import PayloadTooLargeError


class Bounded(io.BytesIO):
    """Takes at most so many bytes of the pickle of ``what``; the next one raises PayloadTooLargeError."""

    def __init__(self, what: str, most: int) -> None:
        super().__init__()
        self._what = what
        self.most = most

    def write(self, data: Any) -> int:
        if self.tell() + memoryview(data).nbytes > self.most:
            self.refuse()
        return super().write(data)

    def refuse(self) -> NoReturn:
        raise PayloadTooLargeError(self._what, None, self.most)
