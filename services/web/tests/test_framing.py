"""Where a request ends, in whatever pieces it arrives."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.framing import MAX_HEAD_BYTES, Framing

LIMIT = 1000
NEXT = b"GET / HTTP/1.1\r\n"
PACKING = b"1;" + b"a" * 200 + b"\r\nx\r\n"


def head(*fields: str) -> bytes:
    return "\r\n".join(["POST /uploader HTTP/1.1", "Host: x", *fields, "", ""]).encode()


def chunked(pieces: list[bytes], end: bytes = b"0\r\n\r\n") -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head("Transfer-Encoding: chunked") + chunks + end


def fed(data: bytes, cuts: list[int] | None = None) -> Framing:
    """``data`` in pieces that end at ``cuts``, the way a server takes them: until it has enough."""
    framing = Framing(LIMIT)
    for start, stop in pairwise([0, *sorted(cuts or []), len(data)]):
        if framing.end is None:
            framing.feed(data[start:stop])
    return framing


def test_some_paths_take_longer_bodies() -> None:
    length = f"Content-Length: {2 * LIMIT}"
    for path, awaited in (("/many", True), ("/many?x", True), ("/manyx", False), ("/", False)):
        framing = Framing(LIMIT, {b"/many": 2 * LIMIT})
        framing.feed(head(length).replace(b"/uploader", path.encode()))
        assert (framing.end is None) == awaited
    framing = Framing(LIMIT, {b"/uploader": 2 * LIMIT})
    framing.feed(head(f"Content-Length: {2 * LIMIT + 1}"))
    assert framing.end is not None


bodies = st.binary(max_size=300)
requests = st.one_of(
    bodies.map(lambda body: head(f"content-length:{len(body)}") + body),
    st.lists(bodies.filter(bool), max_size=3).map(chunked),
    st.just(head()),
)


@given(requests, st.lists(st.integers(0, 400), max_size=8))
def test_the_end_is_where_it_is_however_it_was_cut(request: bytes, cuts: list[int]) -> None:
    framing = fed(request + NEXT, [min(cut, len(request)) for cut in cuts])
    assert (framing.end, framing.whole) == (len(request), True)
    assert framing.data[framing.end :] in (b"", NEXT)


@given(requests.filter(len), st.data())
def test_before_its_last_byte_it_has_no_end(request: bytes, data: st.DataObject) -> None:
    assert fed(request[: data.draw(st.integers(0, len(request) - 1))]).end is None


@given(st.binary(max_size=200))
def test_nothing_it_is_fed_can_disturb_it(garbage: bytes) -> None:
    for framing in (fed(garbage), fed(head("Transfer-Encoding: chunked") + garbage)):
        assert framing.end is None or framing.end <= len(framing.data)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(bytes(MAX_HEAD_BYTES + 1), id="endless head"),
        pytest.param(head("Content-Length: 1001"), id="announced too long"),
        pytest.param(head("Content-Length: 99999999999999999999"), id="announced absurdly long"),
        pytest.param(head("Content-Length: five"), id="announced in words"),
        pytest.param(head("Content-Length: 5", "Content-Length: 6"), id="announced twice"),
        pytest.param(chunked([bytes(600), bytes(401)], b""), id="too long in chunks"),
        pytest.param(chunked([b"x"], b"ffffff\r\n" + bytes(1000)), id="one chunk too long"),
        pytest.param(chunked([b"x"], b"zz\r\n"), id="no size"),
        pytest.param(chunked([b"x"], b"-1\r\n"), id="negative size"),
        pytest.param(chunked([b"x"], b"1" * 300), id="endless size"),
        pytest.param(chunked([b"x"], b"0\r\n" + b"a: b\r\n" * 200), id="endless trailers"),
        pytest.param(chunked([b"x"], b"0\r\n" + b"a: b\r\n" * 200 + b"\r\n"), id="long trailers"),
        pytest.param(chunked([], b"0;" + b"a" * 300 + b"\r\n\r\n"), id="long extension"),
        pytest.param(chunked([b"x"] * 7000, b""), id="mostly packing"),
        pytest.param(chunked([], PACKING * 200), id="long extensions"),
        pytest.param(chunked([], PACKING * 200 + b"0\r\n\r\n"), id="long extensions, and an end"),
    ],
)
def test_what_is_none_is_over_at_once_and_nothing_can_follow_it(request_: bytes) -> None:
    framing = fed(request_)
    assert (framing.end, framing.whole) == (len(request_), False)
    slowly = fed(request_, list(range(len(request_))))
    assert slowly.end is not None
    assert not slowly.whole


@given(bodies)
def test_a_body_in_one_piece_can_be_taken_and_leaves_what_follows(body: bytes) -> None:
    framing = fed(head(f"Content-Length: {len(body)}") + body + NEXT)
    assert framing.take_body() == body
    assert framing.data == NEXT
    assert framing.end == 0


@pytest.mark.parametrize("request_", [chunked([b"x"]), head("Content-Length: 1001")])
def test_any_other_body_stays(request_: bytes) -> None:
    framing = fed(request_)
    assert framing.take_body() is None
    assert framing.data == request_
    assert framing.end == len(request_)


def test_trailers_belong_to_it() -> None:
    request = chunked([b"xyz"], b"0\r\nETag: 1\r\n\r\n")
    assert fed(request + NEXT).end == len(request)


def test_who_waits_for_a_word_is_known() -> None:
    framing = fed(head("Expect: 100-continue", "Content-Length: 5"))
    assert framing.expects_continue
    framing.feed(b"12345")
    assert framing.end
    assert not framing.expects_continue


def test_of_an_old_client_the_wish_for_a_word_is_ignored() -> None:
    old = head("Expect: 100-continue", "Content-Length: 5").replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    assert not fed(old).expects_continue
