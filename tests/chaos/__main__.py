"""``python -m tests.chaos --minutes M --seed S``: the run, and its verdict."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.hive import Storm
from tests.chaos.jobs import FILES, LARGEST
from tests.chaos.plan import plan
from tests.chaos.verdict import Verdict
from tests.clocks import LIBRARIES, Clock
from tests.faultproxy import FaultProxy
from tests.servers import RUNNING, Server, server

#: Jobs in a minute.
RATE = 3600


def main() -> int:
    """The exit status: 0 if nothing was lost, doubled or changed."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Prove by chaos that nothing is lost.")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=int, default=RATE, help="jobs in a minute")
    parser.add_argument("--largest", type=int, default=0, help="bytes of the largest arguments and results, from 1000")
    parser.add_argument("--files", action="store_true", help="have large values in files, not in the database")
    parser.add_argument("--keep", action="store_true", help="keep the records and logs")
    options = parser.parse_args()
    for name in [n for n in os.environ if n.startswith(("PG", "WORKERBEE_")) and "TEST" not in n]:
        del os.environ[name]
    os.environ[LARGEST] = str(options.largest)
    directory = Path(tempfile.mkdtemp(prefix="workerbee-chaos-"))
    print(f"seed {options.seed}, {options.minutes:g} minutes, records in {directory}", flush=True)
    if options.files:
        (directory / "files").mkdir()
        os.environ[FILES] = str(directory / "files")
    try:
        clock = _clock(directory)
        settings = _settings()
        postgres = Server(**settings)
        with FaultProxy("127.0.0.1", postgres.port) as proxy:
            n_jobs = int(options.rate * options.minutes)
            hive = Storm(directory, postgres, proxy, clock, settings, n_jobs=n_jobs, seconds=options.minutes * 60)
            try:
                hive.suffer(plan(options.minutes, options.seed), lambda text: print(text, flush=True))
                hive.settle()
                verdict = Verdict(hive)
            finally:
                hive.close()
        print(verdict)
        return 0 if verdict.innocent else 1
    finally:
        for running in list(RUNNING):  # the first one, or the standby that took its place
            running.close()
        if not options.keep:
            shutil.rmtree(directory)


def _clock(directory: Path) -> Clock | None:
    """What sets the server's clock; None where libfaketime isn't installed."""
    if not LIBRARIES:
        print("no steps of the clock: libfaketime isn't installed", flush=True)
        return None
    directory.chmod(0o711)
    (directory / "clock").mkdir()
    clock = Clock(directory / "clock")
    os.environ |= clock.environment
    return clock


def _settings() -> dict[str, int]:
    """A small queue of notifications, where the server knows of that."""
    with server() as any_server:
        return {"max_notify_queue_pages": 64} if any_server.version >= 170000 else {}


if __name__ == "__main__":
    sys.exit(main())
