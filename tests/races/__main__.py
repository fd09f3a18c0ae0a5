"""``python -m tests.races [NAME ...]`` plays every order of two scripts (12,870 each) and of three (1,680 each).

And beside the store's model every pair (600) and trio (6,000) of steps; ``python -m tests.races model`` does only that.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing

from tests.races import modelled
from tests.races.moments import PAIRS, STATES, meet
from tests.races.stage import SCRIPTS, TRIOS, orders, play, stage
from tests.servers import Server, server
from tests.store.hive import LEASE
from workerbee.store import Connection


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
        bad += _beside_the_model(running) if not names or "model" in names else 0
        for state in STATES if "model" not in names else ():
            for pair in PAIRS:
                for commits in (True, False):
                    try:
                        meet(here, state, pair, commits=commits)
                    except AssertionError as error:
                        bad += 1
                        print(error)
        print(f"{len(STATES) * len(PAIRS) * 2} meetings of two statements" if "model" not in names else "")
    print(f"violations: {bad}")
    return 1 if bad else 0


def _beside_the_model(running: Server) -> int:
    bad = 0
    time.sleep(3 * LEASE)  # so long a server must have run before a bee may judge another one
    with closing(Connection(running.dsn)) as connection:
        for n_actors in (2, 3):
            orders = list(modelled.every(n_actors))
            for order in orders:
                try:
                    modelled.play(connection, order)
                except AssertionError as error:
                    bad += 1
                    print(error)
            print(f"{len(orders):,} orders of {n_actors} steps beside the model")
    return bad


sys.exit(main(sys.argv[1:]))
