"""The hot statements with 100,000 finished jobs, 10,000 batches waiting and 3,000 other jobsets: what each one touches.

Each verb is explained as a direct connection runs it (prepared, with a plan that fits any parameters), and
executed, so that a sort or a scan of more rows than the statement is about shows in the counts. A connection
keeps its plans, so that those made while the tables were nearly empty have to be as good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from uuid import uuid4

import psycopg2
import pytest

from tests.servers import Server
from tests.store.explaining import Explaining, nodes
from tests.store.hive import ANY, Hive, Puppet, success
from workerbee.changing import Changing
from workerbee.store import ClientStore, Connection, schema
from workerbee.store.reader import JobsetReader, Reader
from workerbee.store.seen import Wanted
from workerbee.wire.job import Options
from workerbee.wire.values import Value

FINISHED, BATCHES, JOBSETS = 100_000, 10_000, 3_000
#: Rows that a hot statement may touch in any step: a batch of them, a look at the fronts, never the crowd.
MOST = 2_000
#: Tables that may be scanned where they are small; what is touched of them is counted all the same.
SMALL = {"jobset$", "bee$", "counter$", "departed$", "service$", "history$", "tail$", "function$1"}

FILL = """
INSERT INTO {job} (id, digest, codec, input) SELECT n, int8send(n), 'json', '{{}}' FROM generate_series(1, %(all)s) n;
INSERT INTO {outcome} (job, run, status, codec, output, bee, duration)
SELECT n, 1, 'completed', 'json', '{{}}', %(bee)s, 0.01 FROM generate_series(1, %(finished)s) n;
INSERT INTO {attempt} (job, run, kind, bee, host)
SELECT n, 1, 'failed', %(bee)s, 'h' FROM generate_series(1, %(finished)s, 10) n;
INSERT INTO {batch} (jobset, function, run, jobs)
SELECT {number}, 0, 1, ARRAY[n, n + 1] FROM generate_series(%(finished)s + 1, %(all)s, 2) n;
INSERT INTO {part} (job, run, token, seq, data)
SELECT 0, 0, md5(n::text)::uuid, part, '' FROM generate_series(1, 3000) n CROSS JOIN generate_series(1, 5) part;
INSERT INTO {jobset} (id, uuid, speculate) SELECT 'other_' || n, md5(n::text)::uuid, true
  FROM generate_series(1, %(jobsets)s) n;
"""


Crowd = tuple[Hive, Puppet, Explaining]


#: When the statements are planned, and which ANALYZE (autovacuum's may come at any time) the planner knows of.
PLANNED = ["for many", "for many, vacuumed", "for few", "for few, analyzed", "few to many, vacuumed"]


@pytest.fixture(scope="module", params=PLANNED)
def crowd(server: Server, request: pytest.FixtureRequest) -> Iterator[Crowd]:
    """A jobset with a long past and much before it, and a bee that explains itself."""
    planned: str = request.param
    database = server.new_database()
    plain, explaining = Connection(database.dsn), Explaining(database.dsn)
    schema.ensure(plain)
    hive = Hive(plain)
    bee = hive.bee("a", explaining)
    total = FINISHED + 2 * BATCHES
    hive.catalogue.reserve_jobs(hive.jobset, total)
    if "few" in planned:
        for _ in range(20):
            hive.add(2)
        for verbs in VERBS:
            verbs(hive, bee)
    if "analyzed" in planned:
        hive.run("ANALYZE {batch}")
        for verbs in VERBS:
            verbs(hive, bee)
    hive.run(FILL, all=total, finished=FINISHED, jobsets=JOBSETS, bee=str(uuid4()))
    if "many" in planned:
        for table in ("job", "outcome", "attempt", "batch"):
            hive.run(f"ANALYZE {{{table}}}")
    if "vacuumed" in planned:
        hive.run("VACUUM ANALYZE {batch}")
    yield hive, bee, explaining
    plain.close()
    explaining.close()
    database.drop()


def claim_all_at_hand(hive: Hive, bee: Puppet) -> None:
    bee.claim(400, 400, ANY)


def start(hive: Hive, bee: Puppet) -> None:
    bee.start(bee.claim(2, 0, ANY)[0], 1)


def complete(hive: Hive, bee: Puppet) -> None:
    [batch] = bee.claim(2, 2, ANY)
    for closed in ([batch], []):  # and then once more: late
        bee.complete([success(job.id) for job in batch.jobs], closed, hint=None)


def fail(hive: Hive, bee: Puppet) -> None:
    bee.miss(bee.claim(2, 2, ANY)[0])


def release(hive: Hive, bee: Puppet) -> None:
    [batch] = bee.claim(2, 2, ANY)
    bee.release(batch, [batch.jobs[0].id], untouched=True)


def look_after_others(hive: Hive, bee: Puppet) -> None:
    other = hive.bee("b")
    for batch in other.claim(8, 4, ANY):
        hive.age(batch, 9)
    bee.overtaken([(n, 1) for n in range(500, 700)])
    bee.held_claims()
    bee.take_over(ANY)
    bee.speculate(ANY)
    other.lapse()
    bee.save()


def add(hive: Hive, bee: Puppet) -> None:
    hive.client, plain = ClientStore(bee.connection, hive.jobset, uuid4()), hive.client
    hive.add(100)
    hive.client = plain


def watch(hive: Hive, bee: Puppet) -> None:
    client = ClientStore(bee.connection, hive.jobset, uuid4())
    list(client.finished(list(range(500, 700))))
    client.begun()
    client.reopen([(n, 1) for n in range(500, 700)], Options())
    client.same_calls([n.to_bytes(8, "big") for n in range(500, 700)])
    client.results(5000, n=100)


def serve_all(hive: Hive, bee: Puppet) -> None:
    bee.beat()
    catalogue = type(hive.catalogue)(bee.connection)
    list(catalogue.offers())
    catalogue.held_elsewhere(bee.incarnation, None)
    catalogue.counts(hive.jobset.number)
    catalogue.live_bees(hive.jobset.number)


def cancel_elsewhere(hive: Hive, bee: Puppet) -> None:
    """Few jobs of another jobset: what this one has is none of its business."""
    other = Hive(hive.connection)
    other.add(3)
    other.add(3, due=4e9)
    other.bee().take(1)
    client = ClientStore(bee.connection, other.jobset, uuid4())
    assert client.cancel([(2, 1), (3, 1), (5, 1)], running=False).jobs is None


def keep_large_values(hive: Hive, bee: Puppet) -> None:
    """Find what calls share among what is stored, the places of files, and the results that are there."""
    client = ClientStore(bee.connection, hive.jobset, uuid4())
    client.parts.put_values(Value(memoryview(bytes([n]))) for n in range(20))
    client.lent.places()
    list(client.lent.lent_results())


def look(hive: Hive, bee: Puppet) -> None:
    reader, overview = JobsetReader(bee.connection, hive.jobset), Reader(bee.connection)
    for wanted in (Wanted(), Wanted(("failed", "cancelled")), Wanted(("failed",), cause=b"c"), Wanted(host="h")):
        reader.jobs(5000, 50, wanted)
    reader.jobs(0, 50, Wanted(("retrying",), cause=b"c"))
    reader.jobs(0, 50, Wanted(("running",)))
    reader.causes()
    reader.life(500)
    reader.progress()
    reader.begun_jobs()
    reader.history()
    reader.history_steps(0, 600)
    reader.begun_jobs(job=500)
    reader.recent_ends()
    reader.recent_durations()
    reader.texts(500)
    reader.tail(500)
    reader.run_facts(range(500, 700))
    reader.functions()
    reader._run("legible", after=5000, n=1000)
    ClientStore(bee.connection, hive.jobset, uuid4()).ended_badly()
    ClientStore(bee.connection, hive.jobset, uuid4()).ended_badly([0])
    overview.jobsets(50)
    overview.bees(hive.jobset)
    overview.departed(hive.jobset)
    overview.launches()
    overview.lately()
    overview.histories([hive.jobset.number, 7, 8], 0)
    overview.server_line()
    overview.doing(hive.jobset)
    overview.doing()
    list(Changing(bee.connection, hive.jobset).retry())


VERBS = [
    look,
    cancel_elsewhere,
    claim_all_at_hand,
    start,
    complete,
    fail,
    release,
    look_after_others,
    add,
    watch,
    keep_large_values,
    serve_all,
]


@pytest.mark.parametrize("verbs", VERBS, ids=lambda verbs: verbs.__name__)
def test_hot_statements_touch_what_they_are_about(crowd: Crowd, verbs: Callable[[Hive, Puppet], None]) -> None:
    """No scan of a table that grows, and no step over more rows than a few batches have."""
    hive, bee, explaining = crowd
    explaining.plans.clear()
    verbs(hive, bee)
    assert explaining.plans
    for plan in explaining.plans:
        for node in nodes(plan):
            table = node.get("Relation Name")
            assert node["Node Type"] != "Seq Scan" or table in SMALL, f"{verbs.__name__} scans {table}"
            touched = node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
            most = 10 if verbs is cancel_elsewhere else MOST
            what = f"{node['Node Type']} {table or ''} {node.get('Index Name', '')}"
            assert touched <= most, f"{verbs.__name__}: {what} touches {touched} rows"


@pytest.mark.parametrize("status", ["waiting", "retrying", "running"])
def test_a_page_of_what_is_open_looks_at_headers_once(crowd: Crowd, status: str) -> None:
    """And at no more jobs than a page has."""
    hive, bee, explaining = crowd
    explaining.plans.clear()
    JobsetReader(bee.connection, hive.jobset).jobs(FINISHED + 5000, 50, Wanted((status,)))
    assert explaining.plans
    for plan in explaining.plans:
        for node in nodes(plan):
            touched = node["Actual Rows"] * node["Actual Loops"]
            assert touched <= 1.1 * BATCHES, f"{node['Node Type']} touches {touched} rows"
            assert node["Node Type"] != "Seq Scan" or node["Relation Name"] in SMALL


def test_all_that_is_open_is_read_by_headers(crowd: Crowd) -> None:
    """A page looks at this jobset's headers once, and fetches no more than are in it."""
    hive, bee, explaining = crowd
    explaining.plans.clear()
    client = ClientStore(bee.connection, hive.jobset, uuid4())
    client._run("open_runs", after=BATCHES // 2, n=100, functions=None, below=2**31 - 1)
    [plan] = explaining.plans
    for node in nodes(plan):
        touched = node["Actual Rows"] * node["Actual Loops"]
        assert touched <= 1.1 * BATCHES, f"{node['Node Type']} touches {touched} rows"
        assert node["Node Type"] != "Seq Scan" or node["Relation Name"] in SMALL
    assert plan["Actual Rows"] == 100


@pytest.mark.parametrize("what", ["LIMIT 10", "ORDER BY id DESC LIMIT 10", "WHERE id = 5000"])
def test_the_view_reads_what_is_asked_for(crowd: Crowd, what: str) -> None:
    """By a psql that knows nothing of how we plan, and while bees hold more than the planner has heard of."""
    hive, bee, explaining = crowd
    while hive.run("SELECT count(*) FROM {batch} WHERE claim IS NOT NULL") < [(MOST // 5,)]:
        bee.claim(400, 400, ANY)
    with closing(psycopg2.connect(explaining._dsn)) as psql, psql.cursor() as cursor:
        cursor.execute(f'EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM workerbee."{hive.jobset.id}" {what}')
        [[explained]] = cursor.fetchall()
    for node in nodes(explained[0]["Plan"]):
        touched = node["Actual Rows"] * node["Actual Loops"]
        assert touched <= MOST, f"{node['Node Type']} {node.get('Relation Name', '')} touches {touched} rows"


def test_a_batch_is_closed_by_its_key(crowd: Crowd) -> None:
    """An index by holder still has all that the bee has closed since the last vacuum."""
    _, bee, explaining = crowd
    batch, *_ = bee.claim(2, 2, ANY)
    explaining.plans.clear()
    bee.complete([success(job.id) for job in batch.jobs], [batch], hint=None)
    deletes = [node for plan in explaining.plans for node in nodes(plan) if node.get("Operation") == "Delete"]
    assert deletes
    for delete in deletes:
        assert {node["Index Name"] for node in nodes(delete) if "Index Name" in node} == {"batch$_pkey"}
