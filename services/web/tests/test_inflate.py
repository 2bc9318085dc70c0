"""Compressed bodies: as they were before, or refused before they are large."""

import gzip
import tracemalloc
import zlib

import pytest

from webapp.errors import BadRequest, NoRoom, UnknownCoding, UploadTooLarge, WebError
from webapp.inflate import Inflater

MIB = 1024 * 1024


@pytest.fixture
def inflater() -> Inflater:
    return Inflater(max_bytes=1000, room_bytes=1500)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("", b"text"),
        ("identity", b"text"),
        ("gzip", gzip.compress(b"text", mtime=0)),
        ("GZIP ", gzip.compress(b"text", mtime=0)),
        ("deflate", zlib.compress(b"text")),
        ("gzip", gzip.compress(bytes(1000), mtime=0)),
    ],
)
def test_it_is_what_it_was(inflater: Inflater, coding: str, body: bytes) -> None:
    with inflater.plain(body, coding) as plain:
        assert plain in (b"text", bytes(1000))


@pytest.mark.parametrize(
    ("coding", "body", "kind"),
    [
        ("br", b"text", UnknownCoding),
        ("gzip, gzip", b"text", UnknownCoding),
        ("gzip", b"", BadRequest),
        ("gzip", b"text", BadRequest),
        ("gzip", zlib.compress(b"text"), BadRequest),
        ("gzip", gzip.compress(b"text", mtime=0)[:-1], BadRequest),
        ("deflate", zlib.compress(b"text") + b"more", BadRequest),
        ("gzip", gzip.compress(bytes(1001), mtime=0), UploadTooLarge),
    ],
)
def test_what_it_cannot_be_is_refused(
    inflater: Inflater, coding: str, body: bytes, kind: type[WebError]
) -> None:
    with pytest.raises(kind), inflater.plain(body, coding):
        pass


def test_a_bomb_is_not_inflated(inflater: Inflater) -> None:
    bomb = gzip.compress(bytes(100 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(UploadTooLarge), inflater.plain(bomb, "gzip"):
            pass
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_what_is_inflated_is_counted_until_it_is_answered(inflater: Inflater) -> None:
    body = gzip.compress(bytes(1000), mtime=0)
    with inflater.plain(body, "gzip"):
        with pytest.raises(NoRoom), inflater.plain(body, "gzip"):
            pass
        with inflater.plain(bytes(2000), "identity"):
            pass
    with inflater.plain(body, "gzip"):
        pass
