"""Hints: notifications that say which jobs have ended, and carry small results too.

The first line has ids and ranges of ids, ``1-200 207``; each further line is one end: job, run, codec, signature, and
JSON text or other bytes in hexadecimal. A hint may be forged or lost. So it only says where to look, and a result in it
counts only if its signature holds.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from workerbee.wire.job import Outcome, Stored

#: Bytes of a hint; PostgreSQL's limit is just below 8000.
MOST_BYTES = 7000
#: Of one hint no more than so many jobs are looked at.
MOST_JOBS = 20_000
#: A hint that names nothing: look at everything.
ANYTHING = "?"
# No more digits than an id has, as Python is slow at converting thousands of digits, or refuses to.
_RANGE = re.compile("([0-9]{1,19})(?:-([0-9]{1,19}))?")
_END = re.compile("([0-9]{1,19}) ([0-9]{1,10}) ([a-z]{1,20}) ((?:[0-9a-f]{2})+) (.*)", re.DOTALL)
_JSON = "json"
#: A hint is sent in the jobs' own transaction if it names at most ``SMALL_JOBS`` jobs and none was sent for
#: ``SHARE_SECONDS``.
SMALL_JOBS, SHARE_SECONDS = 8, 0.001
#: Seconds between hints in transactions of their own, while more ends are coming. Both times grow with the number of
#: writers.
FOLLOW_SECONDS = 0.02


class HintThrottle:
    """Limits how often hints are sent: NOTIFY holds a lock of the whole server during COMMIT."""

    def __init__(self) -> None:
        self._last = 0.0

    def shares(self, n_jobs: int, *, writers: int = 1) -> bool:
        """Tell whether the hint of these ``n_jobs`` jobs may be sent in their own transaction."""
        return n_jobs <= SMALL_JOBS and self._passes(SHARE_SECONDS * writers)

    def follows(self, *, is_last: bool, writers: int = 1) -> bool:
        """Tell whether to send a hint now in its own transaction: at once if no more ends are coming, else seldom."""
        return self._passes(0.0 if is_last else FOLLOW_SECONDS * writers)

    def _passes(self, pause: float) -> bool:
        now = time.monotonic()
        passes = now - self._last >= pause
        if passes:
            self._last = now
        return passes


def results_hint(outcomes: Sequence[Outcome]) -> str:
    """Write a hint of these jobs, with their results if those are small and signed."""
    lines = [_ranges(o.job for o in outcomes)]
    size = len(lines[0])
    for o in outcomes if len(outcomes) <= SMALL_JOBS else ():
        if o.mac is not None and len(o.data) < MOST_BYTES:
            data = o.data.decode() if o.codec == _JSON else o.data.hex()
            line = f"{o.job} {o.run} {o.codec} {o.mac.hex()} {data}"
            n = len(line.encode()) + 1
            if size + n < MOST_BYTES:
                lines.append(line)
                size += n
    return "\n".join(lines)


def parse_hint(hint: str) -> tuple[list[int], list[Stored]]:
    """Read the jobs that a hint names, and the ends in it; what can't be read is left out."""
    ids, *lines = hint.split("\n")
    jobs: list[int] = []
    for part in ids.split(" "):
        if found := _RANGE.fullmatch(part):
            first, last = int(found[1]), int(found[2] or found[1])
            jobs.extend(range(first, min(last + 1, first + MOST_JOBS - len(jobs))))
    ends = []
    for found in filter(None, map(_END.fullmatch, lines)):
        job, run, codec, mac, text = found.groups()
        with suppress(ValueError):  # it isn't in hexadecimal
            data = text.encode("utf-8", "surrogatepass") if codec == _JSON else bytes.fromhex(text)
            ends.append(Stored(int(job), int(run), "completed", codec, data, bytes.fromhex(mac)))
    return jobs, ends


def _ranges(jobs: Iterable[int]) -> str:
    """Write the jobs as ranges, or ANYTHING if that would be too long."""
    ranges: list[list[int]] = []
    for job in sorted(jobs):
        if ranges and job == ranges[-1][1] + 1:
            ranges[-1][1] = job
        else:
            ranges.append([job, job])
    text = " ".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)
    return text if len(text) < MOST_BYTES else ANYTHING
