"""What executions have printed, as the store keeps it, and shows it to those who ask."""

from __future__ import annotations

from uuid import uuid4

from tests.store.hive import Hive
from workerbee.store import Catalogue, KeptText
from workerbee.store.bee import ShowRequest
from workerbee.store.reader import JobsetReader
from workerbee.wire.printed import HEAD_BYTES, SUCCESS_BYTES, TAIL_BYTES, Printed, Text


def printed(*texts: bytes, has_failed: bool = False) -> Printed:
    streams = [Text() for _ in range(2)]
    for stream, text in zip(streams, texts, strict=False):
        for start in range(0, len(text), 1000):
            stream.add(text[start : start + 1000])
    return Printed.of(*streams, has_failed=has_failed)


def test_texts_come_back(hive: Hive) -> None:
    """Each execution's once, whatever is in it; one that was stored before stays as it was."""
    bee, claim = hive.bee(), uuid4()
    one = KeptText(1, 1, claim, False, printed(b"hello\n", bytes(range(256))))
    two = KeptText(2, 1, claim, True, printed(b"", b"x"))
    assert bee.keep_texts([one, two])
    assert bee.keep_texts([one._replace(printed=printed(b"other"))])
    reader = JobsetReader(hive.connection, hive.jobset)
    assert [row.printed for row in reader.texts(1) + reader.texts(2)] == [one.printed, two.printed]


def test_without_room_only_failures_are_kept(hive: Hive) -> None:
    """It is said."""
    bee = hive.bee()
    texts = [KeptText(job, 1, uuid4(), has_failed, printed(b"text")) for job, has_failed in ((1, False), (2, True))]
    assert not bee.keep_texts(texts, most=100)
    reader = JobsetReader(hive.connection, hive.jobset)
    assert [len(reader.texts(job)) for job in (1, 2)] == [0, 1]


def test_what_is_shown_was_asked_for(hive: Hive) -> None:
    """By its number or, where it is, by the negative one; nothing is shown to nobody."""
    bee, catalogue, reader = hive.bee(), Catalogue(hive.connection), JobsetReader(hive.connection, hive.jobset)
    bee.show(ShowRequest(1, False), 1, printed(b"unasked"))
    assert (reader.tail(1), bee.overtaken([(1, 1), (2, 1)])) == (None, (set(), []))
    catalogue.ask(hive.jobset, 1, by="me", seconds=30)
    catalogue.ask(hive.jobset, -2, by="me", seconds=30)
    assert sorted(bee.overtaken([(1, 1), (2, 1)]).asked) == [(1, False), (2, True)]
    assert bee.overtaken([(3, 1)]).asked == []
    assert reader.tail(1) is None
    bee.show(ShowRequest(1, False), 1, printed(b"text", has_failed=True))
    bee.show(ShowRequest(2, True), 1, printed(b"stack", has_failed=True))
    tails = [reader.tail(1), reader.tail(-2)]
    assert [row and row.stdout for row in tails] == [b"text", b"stack"]
    catalogue.ask(hive.jobset, 1, by="another", seconds=-30)
    assert reader.tail(1) is not None, "it is asked for longer by the first"


def test_a_long_text_is_read_on_from_anywhere() -> None:
    """What is missing is said where it is missing, and nothing comes twice."""
    text = b"".join(b"%07d\n" % n for n in range(20_000))
    kept = printed(text, has_failed=True)
    gap = len(text) - HEAD_BYTES - TAIL_BYTES
    end = text[-TAIL_BYTES:]
    assert kept.after(1, 0) == text[:HEAD_BYTES] + f"[{gap:,} bytes are missing here]\n".encode() + end
    assert kept.after(1, HEAD_BYTES + 8) == f"[{gap - 8:,} bytes are missing here]\n".encode() + end
    assert kept.after(1, len(text) - 8) == text[-8:]
    assert kept.after(1, len(text)) == b""
    assert len(printed(text).stdout) == SUCCESS_BYTES
    assert printed(text).after(1, len(text) - 16) == text[-16:]
    assert kept.text(2) == ""
