"""How the page shows values: text out of rows made harmless, times, numbers, and facts as JSON."""

from __future__ import annotations

import json
import re
import unicodedata
from datetime import datetime
from typing import Any

from workerbee.outlook import spelled
from workerbee.plots import duration
from workerbee.timing import LAST_EPOCH, utc

#: Marks on one letter, of which no language needs more.
MARKS = 3
_MARK = "".join(chr(n) for n in range(0x300, 0x20000) if unicodedata.category(chr(n)) in ("Mn", "Me"))
_PILES = re.compile(f"[{_MARK}]{{{MARKS + 1},}}")
#: A sign for each state, so that none is told by its colour alone.
SIGNS = {
    "waiting": "○",
    "retrying": "↻",
    "running": "▶",
    "completed": "✓",
    "failed": "✕",
    "cancelled": "⊘",
    "opened": "↻",
    "lost": "?",
    "died": "✕",
    "error": "✕",
    "timeout": "✕",
    "copy": "⊕",
}


class Moment(float):
    """Seconds since the epoch; in JSON an ISO 8601 time in UTC."""

    @property
    def iso(self) -> str:
        """The time in UTC."""
        return utc(self).isoformat(timespec="seconds")

    @property
    def clock(self) -> str:
        """The time as the clock on the wall here has it: only of the day where it is today's."""
        here, now = utc(self).astimezone(), datetime.now().astimezone()
        return f"{here:%H:%M:%S}" if here.date() == now.date() else f"{here:%Y-%m-%d %H:%M}"

    @property
    def minute(self) -> str:
        """The same without seconds, which would promise too much of a time to come."""
        return self.clock[:5] if self.clock[2:3] == ":" else self.clock


def moment(epoch: float | None) -> Moment | None:
    """A time, if there is one."""
    return None if epoch is None else Moment(epoch)


def printable(text: object) -> str:
    """Text without what steers terminals, turns the direction of writing, is no character, or piles up marks."""
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    shown = text if text.isascii() else _PILES.sub(lambda pile: pile[0][:MARKS] + _escaped(pile[0][MARKS:]), text)
    return "".join(c if c.isprintable() or c in "\n\t" else _escaped(c) for c in shown)


def _escaped(text: str) -> str:
    return "".join(f"\\x{ord(c):02x}" for c in text)


def short(text: object, width: int = 120) -> str:
    """One line of a text, with a mark where something is missing."""
    text = str(text)
    most = 4 * width  # however much of it is blank
    line = " ".join(printable(text[:most]).split())
    return line if len(line) <= width and len(text) <= most else line[: width - 1] + "…"


def number(n: float | None) -> str:
    """A count with its thousands apart, or a rate with three digits."""
    if n is None:
        return ""
    return f"{n:,}" if isinstance(n, int) else f"{n:,.0f}" if n >= 100 else f"{n:.3g}"


def size(n: float) -> str:
    """Write a number of bytes."""
    unit, power = next(((u, p) for u, p in (("TB", 12), ("GB", 9), ("MB", 6), ("kB", 3)) if n >= 10**p), ("B", 0))
    scaled = n / 10**power
    return f"{scaled:.0f} {unit}" if scaled >= 100 or not power else f"{scaled:.3g} {unit}"


def ago(seconds: float) -> str:
    """Say how long ago it was, rounded so that it seldom changes."""
    return "now" if seconds < 10 else f"{spelled(float(5 * round(min(seconds, LAST_EPOCH) / 5)))} ago"


def plain(value: Any) -> Any:
    """Facts as JSON has them."""
    if isinstance(value, Moment):
        return value.iso
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def document(name: str, facts: dict[str, Any]) -> bytes:
    """The JSON twin of a view."""
    return json.dumps({"schema": f"workerbee.page.{name}/1"} | plain(facts), indent=1).encode()


FILTERS = {
    "printable": printable,
    "short": short,
    "number": number,
    "size": size,
    "spelled": spelled,
    "ago": ago,
    "took": duration,
}
