"""``python -m tests.races [NAME ...]`` plays every order of two scripts (12,870 each) and of three (1,680 each)."""

from __future__ import annotations

import sys
import time

from tests.races.moments import PAIRS, STATES, meet
from tests.races.stage import SCRIPTS, TRIOS, orders, play, stage
from tests.servers import server


def main(names: list[str]) -> int:
    bad = 0
    with server() as running, stage(running.dsn) as here:
        for name, scripts in (SCRIPTS | TRIOS).items():
            if names and name not in names:
                continue
            began, n = time.monotonic(), 0
            for order in orders(*scripts):
                n += 1
                try:
                    play(here, order)
                except AssertionError as error:
                    bad += 1
                    print(error)
            print(f"{name}: {n:,} orders in {time.monotonic() - began:.0f} s")
        for state in STATES:
            for pair in PAIRS:
                for commits in (True, False):
                    try:
                        meet(here, state, pair, commits=commits)
                    except AssertionError as error:
                        bad += 1
                        print(error)
        print(f"{len(STATES) * len(PAIRS) * 2} meetings of two statements")
    print(f"violations: {bad}")
    return 1 if bad else 0


sys.exit(main(sys.argv[1:]))
