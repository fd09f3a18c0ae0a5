"""What the machine and its administrator leave to this process: processor cores, memory, open files, a host name."""

from __future__ import annotations

import getpass
import logging
import math
import os
import resource
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: Descriptors that a bee needs for each runner, including those for starting it, and for itself.
_EACH, _ITSELF = 7, 32
_CGROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """Count the cores that this process may use: by its affinity, as Slurm sets it, and a container's quota."""
    n = len(os.sched_getaffinity(0))
    quota = _quota()
    return n if quota is None else max(1, min(n, math.ceil(quota)))


def _quota() -> float | None:
    """Count the cores that the control groups of this process give it."""
    return min((quota for group in _groups("cpu") if (quota := _quota_of(group))), default=None)


def _groups(controller: str) -> list[Path]:
    """Give the control groups that this process is in, in their second version or the first."""
    groups: list[Path] = []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or controller in controllers.split(","):
                top = _CGROUPS / controller if controllers else _CGROUPS
                own = top / path.lstrip("/")
                groups += [place for place in (own, *own.parents) if place.is_relative_to(top)]
    return groups


def _quota_of(group: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)  # "max" raises ValueError: there is no limit
    with suppress(OSError, ValueError):
        quota_us = int((group / "cpu.cfs_quota_us").read_text())
        return quota_us / int((group / "cpu.cfs_period_us").read_text()) if quota_us > 0 else None
    return None


def free_memory() -> int:
    """Count the bytes that are free or can be freed for this process. Raises OSError if that can't be known."""
    told = Path("/proc/meminfo").read_text()
    free = int(told[told.index("MemAvailable:") :].split(maxsplit=2)[1]) * 1024
    return min([free, *(left for group in _memory_groups() if (left := _left_in(group)) is not None)])


@cache
def _memory_groups() -> list[Path]:
    return [group for group in _groups("memory") if _limit_of(group) is not None]


def _limit_of(group: Path) -> int | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # "max" is no number
            limit = int((group / name).read_text())
            return limit if limit < 1 << 60 else None
    return None


def _left_in(group: Path) -> int | None:
    """Count the bytes that a control group's limit leaves; files that the kernel only remembers don't count as used."""
    limit = _limit_of(group)
    if limit is None:
        return None
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    prefix = "total_" if "total_cache" in stat else ""
    files = int(stat[f"{prefix}inactive_file"]) + int(stat[f"{prefix}active_file"])
    used = "memory.current" if not prefix else "memory.usage_in_bytes"
    return limit - int((group / used).read_text()) + files


def affordable(n_runners: int, log: logging.Logger) -> int:
    """Say how many of these runners a bee can have: it raises its soft limit of open files as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _ITSELF + _EACH * n_runners
    if soft == resource.RLIM_INFINITY or needed <= soft:
        return n_runners
    limit = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit == needed:
        return n_runners
    fewer = max(1, (limit - _ITSELF) // _EACH)
    log.warning(
        "%d runners instead of %d, as only %d files may be open here; raise that by ulimit -n", fewer, n_runners, limit
    )
    return fewer


def host() -> str:
    """Give the name of this machine, readable whatever bytes it is made of."""
    return os.fsencode(os.uname().nodename).decode("utf-8", "backslashreplace")


def user() -> str:
    """Name who uses this process, and where, for others to see."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{os.uname().nodename}"


class Few(set[T]):
    """A set that begins anew when it has so many: for what is only said, or asked for, again if it was forgotten."""

    most = 1000

    def add(self, element: T, /) -> None:
        if len(self) >= self.most:
            self.clear()
        super().add(element)
