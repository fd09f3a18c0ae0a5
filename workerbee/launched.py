"""The launch of this process: the launcher's or batch system's name for it, its place in it, and when its time ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

#: For each launcher the environment variables with the job's name, the task's place in it, and the end of its time
#: (seconds since the epoch). The first line with both name and place counts; else the first with a name.
_LAUNCHERS = (
    ("", "WORKERBEE_LAUNCH", "WORKERBEE_PLACE", "WORKERBEE_ENDS_AT"),
    ("slurm", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_END_TIME"),
    ("slurm", "SLURM_JOB_ID", "SLURM_PROCID", "SLURM_JOB_END_TIME"),
    ("pbs", "PBS_JOBID", "PBS_ARRAY_INDEX", ""),
    ("lsf", "LSB_JOBID", "LSB_JOBINDEX", ""),
    ("sge", "JOB_ID", "SGE_TASK_ID", ""),
)
#: The largest place that is stored, and characters of a name.
_MOST_PLACE, _MOST_CHARS = 2**31 - 1, 200


class Launched(NamedTuple):
    """A launch, as "slurm 4711", the place of this process in it, and when it will be ended; None: not known."""

    launch: str | None = None
    place: int | None = None
    ends_at: float | None = None


def launched(environment: Mapping[str, str]) -> Launched:
    """Read from an environment by what its process was launched."""
    found = [_read(environment, *launcher) for launcher in _LAUNCHERS]
    named = [one for one in found if one.launch is not None]
    return next((one for one in named if one.place is not None), named[0] if named else Launched())


def parts_of(launch: str) -> tuple[str, str]:
    """Divide a launch into the batch system and the system's name for it; a launcher of one's own has no system."""
    system, _, name = launch.partition(" ")
    return (system, name) if name and system in {line[0] for line in _LAUNCHERS} else ("", launch)


def _read(environment: Mapping[str, str], system: str, job: str, place: str, ends_at: str) -> Launched:
    name = environment.get(job, "")
    if not name.isprintable() or not name.strip():
        return Launched()
    end = _number(environment.get(ends_at, ""))
    launch = f"{system} {name.strip()}".strip()[:_MOST_CHARS]
    return Launched(launch, _number(environment.get(place, "")), None if end is None else float(end))


def _number(text: str) -> int | None:
    """Parse a number that PostgreSQL's integer holds; None for anything else, such as SGE's "undefined"."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MOST_PLACE else None
