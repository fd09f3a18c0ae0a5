"""The pictures of the page in docs/pictures, made anew: ``python -m tests.dashboard.pictures [DIRECTORY]``.

The page is the real one, over a server of its own; the jobs are made by the store's verbs, and their times and history
by a generator with a seed.
"""

from __future__ import annotations

import io
import itertools
import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from PIL import Image

from tests import servers
from tests.dashboard import browser
from tests.dashboard.stage import Page, fail_one, page
from tests.store.hive import Hive, Puppet
from workerbee.store import Connection, schema

#: Name, address, theme, width and height of each.
PICTURES = [
    ("jobsets", "", "light", 1120, 640),
    ("jobset-light", "jobset/texturemap_2026", "light", 1120, 1180),
    ("jobset-dark", "jobset/texturemap_2026", "dark", 1120, 1180),
    ("failure", "jobset/texturemap_2026/job/{failed}", "light", 1120, 820),
    ("narrow-light", "jobset/texturemap_2026", "light", 390, 844),
    ("narrow-dark", "", "dark", 390, 844),
]
#: Jobs in one batch.
PORTION = 100
CAUSES = [
    (41, "ValueError", "no star within 3.2 px of ({}, 17)", "survey.py", "centroid"),
    (9, "FileNotFoundError", "[Errno 2] No such file or directory: '/data/plates/{}.fits'", "plates.py", "load"),
    (3, "LinAlgError", "SVD did not converge", "fit.py", "solve"),
]


@contextmanager
def stage() -> Iterator[tuple[Page, int, Callable[[], None]]]:
    """The page over some jobsets, a job that has failed, and what does some of the work."""
    random.seed(4)
    with servers.server() as server:
        connection = Connection(server.dsn)
        schema.ensure(connection)
        finished(Hive(connection, "annealing_2025"), 1200)
        paused(Hive(connection, "qsar_screen"))
        waiting(Hive(connection, "nightly_calibration"))
        hive = Hive(connection, "texturemap_2026")
        failed = under_way(hive)
        bee = hive.bee("node-03")
        hive.run("DELETE FROM {bee} WHERE incarnation = %(bee)s", bee=str(bee.incarnation))
        with page(server.dsn) as opened:
            yield opened, failed, partial(work, hive, bee)
        connection.close()


def work(hive: Hive, bee: Puppet) -> None:
    """One job more is done."""
    bee.succeed(bee.take(1))
    hive.run("UPDATE {outcome} SET duration = 11 WHERE duration < 0.1")


def completed(hive: Hive, bee: Puppet, n: int) -> None:
    """So many jobs that took about ten seconds each, some much longer."""
    for _ in range(n // PORTION):
        hive.add(PORTION)
        bee.succeed(bee.take(PORTION))
    hive.run("SELECT setseed(0.4)")
    hive.run(
        "UPDATE {outcome} SET duration = 7 + 5 * (-ln(1 - random() * 0.999)) ^ 1.3, output = '{{\"flux\": 17.25}}'"
        " WHERE status = 'completed'"
    )


def remember(hive: Hive, minutes: int, *, done: int, failed: int, lost: int = 0) -> None:
    """A history in which so much has ended by now, with a rate that goes up and down a little."""
    weights = [1 + 0.35 * math.sin(n / 6) + random.uniform(-0.15, 0.15) for n in range(minutes + 1)]
    ended = [0.0, *itertools.accumulate(weight / sum(weights) for weight in weights)]
    over = time.time() % 60 / 60  # of the present minute
    for n in range(minutes + 1):
        share = ended[n + 1] - over * (ended[n + 1] - ended[n])
        late = max(0.0, (share - 0.55) / 0.45)
        hive.run(
            "INSERT INTO {history} (jobset, minute, added, reopened, completed, failed, cancelled, retried, lost,"
            " speculative, late, bees, runners) VALUES ({number}, date_trunc('minute', now()) - %(ago)s * interval"
            " '1 minute', 0, 0, %(done)s, %(failed)s, 0, 0, %(lost)s, 0, 0, 6, 48)",
            ago=minutes - n,
            done=int(done * share),
            failed=int(failed * late),
            lost=int(lost * (n > minutes // 2)),
        )


def under_way(hive: Hive) -> int:
    """Most of it done, failures of three causes, a straggler with its copy; a failed job."""
    bees = [hive.bee(f"node-{n:02}") for n in (3, 4, 7, 11, 12)]
    hive.run("UPDATE {bee} SET runners = 3, started_at = now() - interval '52 minutes'")
    completed(hive, bees[0], 2900)
    example = 0
    for n, kind, message, file, function in CAUSES:
        for i in range(n):
            hive.add()
            frames = f'  File "{file}", line {40 + len(kind)}, in {function}\n    raise {kind}(…)'
            trace = 'Traceback (most recent call last):\n  File "texture.py", line 88, in measure\n'
            trace += f"    field = solve(plate, order=input_data['order'])\n{frames}\n{kind}: {message.format(i + 211)}"
            failed = fail_one(bees[i % len(bees)], message.format(i + 211), kind, trace)
            example = example or failed
    hive.add(12)
    for bee in bees[:4]:
        bee.take(3)
    hive.add(620)
    hive.run("UPDATE {batch} SET claimed_at = now() - interval '8 s', marked_at = NULL WHERE claim IS NOT NULL")
    [(slow,)] = hive.run(
        "SELECT id FROM {batch} WHERE claim IS NOT NULL AND jobset = {number} AND started > 0 ORDER BY id LIMIT 1"
    )
    hive.run("UPDATE {batch} SET claimed_at = now() - interval '150 s' WHERE id = %(slow)s", slow=slow)
    hive.run(
        "INSERT INTO {batch} (jobset, function, run, jobs, bee, claim, claimed_at, started, copy_of)"
        " SELECT jobset, function, run, ARRAY[jobs[array_lower(jobs, 1)]], %(bee)s, gen_random_uuid(),"
        " now() - interval '60 s', 1, id"
        " FROM {batch} WHERE id = %(slow)s",
        slow=slow,
        bee=str(bees[4].incarnation),
    )
    bees[2].lapse()
    hive.run(
        "UPDATE {bee} SET launch = 'slurm 4711', place = right(host, 2)::integer,"
        " ends_at = now() + interval '3 hours' WHERE host LIKE 'node-%%'"
    )
    remember(hive, 52, done=2900, failed=53, lost=2)
    hive.run(
        "INSERT INTO {text} (job, run, claim, bee, at, head, stdout, stderr, stdout_size, stderr_size) VALUES"
        " (%(job)s, 1, gen_random_uuid(), %(bee)s, now(), 8192, %(out)s::bytea, %(err)s::bytea, %(n)s, %(m)s)",
        job=example,
        bee=str(bees[0].incarnation),
        out=(out := "plate 211: 4096 x 4096, gain 1.7\nbackground 312.4 +- 17.1\n4 candidates, none within 3.2 px\n"),
        err=(err := "RuntimeWarning: invalid value encountered in sqrt\n"),
        n=len(out),
        m=len(err),
    )
    hive.run('UPDATE {job} SET input = \'{{"plate": 211, "order": 3, "band": "H"}}\' WHERE id = %(job)s', job=example)
    return example


def finished(hive: Hive, n: int) -> None:
    """All done, some time ago."""
    completed(hive, hive.bee("node-03"), n)
    remember(hive, 40, done=n, failed=0)
    hive.run(
        "UPDATE {history} SET minute = minute - interval '12 minutes', completed = %(n)s * completed / ("
        "SELECT max(completed) FROM {history} WHERE jobset = {number}) WHERE jobset = {number}",
        n=n,
    )
    hive.run("DELETE FROM {bee}")


def paused(hive: Hive) -> None:
    """Half done, and paused."""
    completed(hive, hive.bee("node-07"), 300)
    hive.add(280)
    hive.run("UPDATE {jobset} SET paused_at = now(), paused_by = 'ada@login1' WHERE number = {number}")
    remember(hive, 25, done=300, failed=0)
    hive.run("DELETE FROM {bee}")


def waiting(hive: Hive) -> None:
    """Nothing done yet, and nobody there."""
    hive.add(90)


def take(to: Path) -> None:
    """Take all pictures."""
    to.mkdir(parents=True, exist_ok=True)
    with stage() as (opened, failed, work), browser.chromium() as chromium:
        context = chromium.new_context()
        tab = context.new_page()
        tab.goto(f"{opened.url}/login?token={opened.token}")
        tab.wait_for_selector("main#main")
        for name, address, theme, width, height in PICTURES:
            tab.set_viewport_size({"width": width, "height": height})
            tab.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            tab.goto(f"{opened.url}/{address.format(failed=failed)}")
            for _ in range(4):  # two looks make a rate
                work()
                time.sleep(0.7)
            small(tab.screenshot()).save(to / f"{name}.png", optimize=True)


def small(png: bytes) -> Image.Image:
    """The picture in its 256 most frequent colours."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    counted = sorted(picture.getcolors(picture.width * picture.height), reverse=True)
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in counted[:256] for part in colour])
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


if __name__ == "__main__":
    take(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs" / "pictures")
