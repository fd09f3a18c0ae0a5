"""What bees can't run, as the clients that wait for it hear of it."""

from __future__ import annotations

from uuid import uuid4

from tests.store.hive import Hive
from workerbee.store.answers import Refused
from workerbee.wire.job import FunctionRow


def test_what_all_bees_refuse(hive: Hive) -> None:
    """All that are there, or some where nobody does anything; of those that are gone only where nobody is left."""
    function = hive.client.put_function(FunctionRow(0, b"d", "m:f", "import", b"m:f", "3.11", b"mac"), b"i")
    hive.add(1)
    hive.add(1, function=function)
    one, two, gone = hive.bee("a"), hive.bee("b"), hive.bee("0")
    gone.refuse(function, "never")
    hive.catalogue.leave(gone.incarnation)
    assert hive.client.refused() == []
    one.refuse(function, "no key")
    one.refuse(function, "no key")
    assert hive.client.refused() == [Refused("m:f", 1, "a", "no key")]
    two.take()
    assert hive.client.refused() == [], "the other one is at work"
    two.refuse(function, "no such module")
    assert hive.client.refused() == [Refused("m:f", 2, "a", "no key")]
    hive.catalogue.leave(one.incarnation)
    hive.catalogue.leave(two.incarnation)
    assert [said[:2] for said in hive.client.refused()] == [("m:f", 0)]
    three = hive.bee("c")
    assert hive.client.refused() == []
    three.take(2)
    assert hive.client.refused() == []


def test_refusals_that_make_no_sense(hive: Hive) -> None:
    """Neither those that are no object, nor names that are no numbers, hide the others."""
    function = hive.client.put_function(FunctionRow(0, b"d", "m:f", "import", b"m:f", "3.11", b"mac"), b"i")
    hive.add(1, function=function)
    hive.bee().refuse(function, "no key")
    for refuses in ("[]", "1", "null", '{"x": [], "99999999999": null}'):
        query = """INSERT INTO workerbee."service$" (jobset, bee, host, refuses) VALUES ({number}, %(b)s, '', %(r)s)"""
        hive.run(query, b=str(uuid4()), r=refuses)
    assert hive.client.refused() == [Refused("m:f", 1, "a", "no key")]


def test_who_could_do_what_fails_here(hive: Hive) -> None:
    """Bees that are alive, serve this jobset, and have neither refused that function nor failed at it."""
    one, two, three = hive.bee(), hive.bee(), hive.bee()
    assert one.able_bees(7) == 2
    two.doubt(7)
    two.doubt(7)
    two.doubt(8)
    assert (one.able_bees(7), two.able_bees(7)) == (1, 2)
    two.trust(7)
    assert (one.able_bees(7), one.able_bees(8)) == (2, 1)
    three.refuse(7, "no key")
    assert one.able_bees(7) == 1
    two.lapse()
    assert one.able_bees(7) == 0
