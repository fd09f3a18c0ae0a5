"""The origin's default logger: messages of the logger ``workerbee`` on stdout.

Importing the package configures nothing; only `JobSet` and the commands call this.
"""

from __future__ import annotations

import logging
import sys


class _Stdout(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever ``sys.stdout`` is at the time, so that notebooks and captured tests see it."""

    #: What to write to while ``sys.stdout`` is a job's.
    instead: object = None

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> object:
        return self.instead or sys.stdout


def keep_apart(stream: object) -> None:
    """Print messages to this stream as long as ``sys.stdout`` is a job's; with None, to ``sys.stdout`` again."""
    _Stdout.instead = stream


def print_to_stdout(logger: logging.Logger) -> logging.Logger:
    """Give the logger a stdout handler, unless somebody has configured it already."""
    if not logger.handlers:
        handler = _Stdout()
        handler.setFormatter(logging.Formatter("(%(asctime)s) %(name)s: %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger
