"""Installing the schema: once, whoever races, whenever somebody is killed, and not where it can't be."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing

import pytest
from psycopg2 import extensions

from tests.servers import Database
from tests.store.explaining import Explaining, nodes
from tests.store.hive import Hive
from workerbee import WorkerbeeExecutor
from workerbee.errors import UnsupportedDatabaseError
from workerbee.store import Connection, schema
from workerbee.store.queries import load
from workerbee.store.statement import Statement

VERSIONS = 'SELECT number FROM workerbee."version$" ORDER BY number'
INSTALL = """
import sys
from workerbee.store import Connection, schema
print("ready", flush=True)
sys.stdin.readline()
schema.ensure(Connection(sys.argv[1]))
"""


def test_racing_processes_install_it_once(database: Database) -> None:
    """Eight at the same moment: all succeed, and each migration was applied once."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", INSTALL, database.dsn],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    ends = [(racer.communicate(timeout=60)[1], racer.returncode) for racer in racers]
    assert ends == [("", 0)] * 8
    assert database.execute(VERSIONS) == [(n,) for n in sorted(schema.migrations())]


def test_a_killed_migration_leaves_nothing(database: Database) -> None:
    """Cut after any of its statements, it is as if it had never begun, and the next one does it all."""
    with closing(database.connect()) as connection:
        statements = statements_of(1, connection)
    assert len(statements) > 10
    for n in range(1, len(statements)):
        connection = database.connect()
        with connection.cursor() as cursor:
            for statement in statements[:n]:
                cursor.execute(statement)
        connection.close()
    assert database.execute("SELECT to_regnamespace('workerbee') IS NULL") == [(True,)]
    connection = Connection(database.dsn)
    schema.ensure(connection)
    connection.close()
    assert database.execute(VERSIONS) == [(n,) for n in sorted(schema.migrations())]


def statements_of(number: int, connection: extensions.connection) -> list[str]:
    """The statements of one migration; none of them holds a semicolon of its own."""
    text = schema.script(number).as_string(connection)
    code = "\n".join(line.split("--")[0] for line in text.splitlines())
    return [statement.strip() for statement in code.split(";") if statement.strip()]


def test_a_newer_schema_is_refused(database: Database) -> None:
    """By a program that can't know what it means."""
    connection = Connection(database.dsn)
    schema.ensure(connection)
    database.execute('INSERT INTO workerbee."version$" (number) VALUES (99)')
    with pytest.raises(UnsupportedDatabaseError, match=r"version 99.*upgrade workerbee"):
        schema.ensure(connection)
    connection.close()


def test_a_database_that_is_read_only_by_default_is_named(database: Database) -> None:
    """At once, with what has set it so; who only reads goes on."""
    connection = Connection(database.dsn)
    schema.ensure(connection)
    connection.close()
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    with pytest.raises(
        UnsupportedDatabaseError, match=r"default_transaction_read_only is on here \(source: database\)"
    ):
        WorkerbeeExecutor(0, jobset_id="work", dsn=database.dsn, reconnect_timeout=1)
    schema.require(connection)
    connection.close()


def test_jobsets_cost_an_arrival_nothing(database: Database) -> None:
    """Whoever looks whether the schema is there, and usable, looks at its shared tables only."""
    connection = Explaining(database.dsn)
    schema.ensure(connection)
    for _ in range(5):
        Hive(connection)
    connection.plans.clear()
    connection.run(Statement(load("catalogue.sql")["server_facts"]), {"needed": list(schema.WRITING)})
    [plan] = connection.plans
    for node in nodes(plan):
        touched = node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0)
        assert touched <= 40, f"{node['Node Type']} touches {touched} rows"
    connection.close()


def test_row_level_security_that_lets_nothing_through_is_named(database: Database) -> None:
    """As a right that is lacking; with a policy it is the owner's affair, and its owner is not bound by it."""
    owner = Connection(database.dsn)
    schema.ensure(owner)
    role = f"guest_{database.name}"
    guest = Connection(extensions.make_dsn(database.dsn, user=role))
    database.execute(f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA workerbee TO {role}")
    database.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA workerbee TO {role}")
    database.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA workerbee TO {role}")
    database.execute('ALTER TABLE workerbee."bee$" ENABLE ROW LEVEL SECURITY')
    try:
        with pytest.raises(
            UnsupportedDatabaseError, match=r'lacks a policy of row-level security on workerbee."bee\$";'
        ):
            schema.ensure(guest)
        schema.ensure(owner)
        database.execute(f'CREATE POLICY all_of_it ON workerbee."bee$" TO {role} USING (true)')
        schema.ensure(guest)
    finally:
        guest.close()
        owner.close()
        database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_who_may_not_create_it_is_told(database: Database) -> None:
    """With what to ask for; once it is there, it is used."""
    database.execute("CREATE ROLE guest LOGIN")
    guest = Connection(extensions.make_dsn(database.dsn, user="guest"))
    try:
        with pytest.raises(UnsupportedDatabaseError, match="GRANT CREATE ON DATABASE"):
            schema.ensure(guest)
        owner = Connection(database.dsn)
        schema.ensure(owner)
        owner.close()
        database.execute("GRANT USAGE ON SCHEMA workerbee TO guest")
        database.execute('GRANT SELECT ON workerbee."version$" TO guest')
        with pytest.raises(UnsupportedDatabaseError, match=r'lacks DELETE on workerbee."batch\$"'):
            schema.ensure(guest)
        database.execute("GRANT ALL ON ALL TABLES IN SCHEMA workerbee TO guest")
        database.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA workerbee TO guest")
        schema.ensure(guest)
    finally:
        guest.close()
        database.execute("DROP OWNED BY guest")
        database.execute("DROP ROLE guest")
