"""What the machine and its administrator leave to this process: processor cores, open files, a host name."""

from __future__ import annotations

import getpass
import logging
import math
import os
import resource
from contextlib import suppress
from pathlib import Path

#: Descriptors of a bee for each runner, with what starting one needs for a moment; and for itself.
_EACH, _ITSELF = 7, 32
_CGROUPS = Path("/sys/fs/cgroup")


def cores() -> int:
    """The processor cores that this process may use: by its affinity, as Slurm sets it, and a container's quota."""
    n = len(os.sched_getaffinity(0))
    quota = _quota()
    return n if quota is None else max(1, min(n, math.ceil(quota)))


def _quota() -> float | None:
    """The cores that the control groups of this process give it, in their second version or the first."""
    quotas = []
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "cpu" in controllers.split(","):
                top = _CGROUPS / "cpu" if controllers else _CGROUPS
                own = top / path.lstrip("/")
                quotas += [q for place in (own, *own.parents) if place.is_relative_to(top) and (q := _quota_of(place))]
    return min(quotas, default=None)


def _quota_of(group: Path) -> float | None:
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text().split()
        return int(quota) / int(period)  # "max" is no number
    with suppress(OSError, ValueError):
        quota_us = int((group / "cpu.cfs_quota_us").read_text())
        return quota_us / int((group / "cpu.cfs_period_us").read_text()) if quota_us > 0 else None
    return None


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
    """The name of this machine, readable whatever bytes it is made of."""
    return os.fsencode(os.uname().nodename).decode("utf-8", "backslashreplace")


def user() -> str:
    """Name who uses this process, and where, for others to see."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.getuid())
    return f"{name}@{os.uname().nodename}"
