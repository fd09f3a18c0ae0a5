"""Remarks: a client warns once of each function whose calls are large, or can't be compared with earlier ones."""

from __future__ import annotations

import logging
import warnings

from workerbee.blobs import BLOB
from workerbee.wire import codec
from workerbee.wire.functions import Function


class Remarks:
    """Says each thing once for each function's name."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: set[tuple[str, str]] = set()
        self._latest: Function | None = None  # whose size was looked at last

    def on(self, function: Function, call: codec.Call, *, unique: bool) -> None:
        """Look at a call before it is stored; ``unique``: an equal one would be attached to, if it can be compared."""
        size = 0 if call.codec == BLOB else codec.size(call)  # the user has said where such values are to be
        if size > codec.WARN_BYTES and self._is_first(function, "large"):
            warnings.warn(codec.too_much("a call", function.name, size), stacklevel=4)
        if function is not self._latest:
            self._latest = function
            if function.size > codec.WARN_BYTES and self._is_first(function, "large itself"):
                what = "the data along with the code"
                warnings.warn(codec.too_much(what, function.name, function.size), stacklevel=4)
        if unique and (call.identity is None or not function.memo) and self._is_first(function, "memo"):
            why = function.culprit
            what = "arguments that aren't exactly JSON" if why is None else f"what can't be compared: {why}"
            self._log.info(
                "calls of %s have %s: each one is a job of its own, also when it is submitted again",
                function.name,
                what,
            )

    def _is_first(self, function: Function, about: str) -> bool:
        site = (function.name, about)
        first = site not in self._said
        self._said.add(site)
        return first
