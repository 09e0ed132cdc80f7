"""Server-Sent Events: the same events, however the bytes come."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mcp import sse
from gateway.mcp.sse import EventTooLargeError, Parser, ServerSentEvent, encode

BOM = b"\xef\xbb\xbf"

FIELDS = [b"data", b"data:", b"data: ", b"event:", b"id: 7", b"id:\0", b"retry: 5", b":"]
TEXT = [b" ", b"x", b'{"a":1}', "é".encode(), b"\xef", b"\xff", b"\0", BOM]
ENDS = [b"\n", b"\r", b"\r\n", b"\n\n"]
pieces = st.sampled_from([*FIELDS, *TEXT, *ENDS])
streams = st.lists(pieces, max_size=40).map(b"".join)


def parse(*chunks: bytes) -> list[ServerSentEvent]:
    parser = Parser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def reference(stream: bytes) -> list[ServerSentEvent]:
    """The algorithm of WHATWG HTML, section 9.2.6, step by step over a whole stream."""
    stream = stream.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    data, event, last_id, events = b"", b"", None, []
    for line in stream.split(b"\n")[:-1]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                events.append(ServerSentEvent(data[:-1], event.decode("utf-8", "replace") or "message", last_id))
            data, event = b"", b""
        elif name == b"data":
            data += value + b"\n"
        elif name == b"event":
            event = value
        elif name == b"id" and b"\0" not in value:
            last_id = value.decode("utf-8", "replace")
    return events


@given(streams, st.data())
@example(b"\n" + BOM + b"data: x\n\n", None)
@example(b"data: x\r\r\n\r\ndata: y\r\r", None)
@example(b"event: a\r\ndata: 1\r\n\r\n", None)
@example(b"event: a\nevent:\ndata: 1\n\n", None)
def test_any_chunking_gives_the_events_of_the_standard(stream: bytes, data: st.DataObject | None) -> None:
    chunks, rest = [], stream
    while rest:
        size = 1 if data is None else data.draw(st.integers(1, len(rest)))
        chunks.append(rest[:size])
        rest = rest[size:]
    assert parse(stream) == reference(stream)
    assert parse(*chunks) == reference(stream)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_an_event_is_there_as_soon_as_its_last_byte_is(end: bytes) -> None:
    parser = Parser()
    assert parser.feed(b"event: message" + end + b"data: 1" + end) == []
    assert parser.feed(end) == [ServerSentEvent(b"1")]
    assert parser.feed(b"") == []
    assert parser.feed(b"data: 2" + end + end) == [ServerSentEvent(b"2")]


def test_fields_mean_what_the_standard_says() -> None:
    stream = b": a comment\nid: 7\nevent: ping\ndata:  two\ndata\ndata:lines\nunknown: x\n\ndata: next\n\n"
    assert parse(stream) == [
        ServerSentEvent(b" two\n\nlines", "ping", "7"),
        ServerSentEvent(b"next", "message", "7"),
    ]


def test_an_event_without_data_is_none_but_one_with_empty_data_is() -> None:
    assert parse(b"event: ping\nid: 1\n\n: keep-alive\n\n") == []
    assert parse(b"id: 1\ndata:\n\n") == [ServerSentEvent(b"", "message", "1")]


def test_an_event_that_the_stream_does_not_end_is_not_handed_over() -> None:
    assert parse(b"data: whole\n\ndata: cut") == [ServerSentEvent(b"whole")]


@pytest.mark.parametrize("line", [b"data: ", b"data: 123456789\n", b"data\n", b": a comment "])
def test_a_stream_whose_event_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    more = line if line.endswith(b"\n") else b"x"
    with pytest.raises(EventTooLargeError, match="more than 1000 bytes"):
        parse(line, *[more] * 2000)


def test_many_events_together_may_be_larger_than_one_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    event = b"data: " + b"x" * 900 + b"\n\n"
    assert len(parse(*[event] * 50)) == 50
    assert len(parse(event * 50)) == 50


@given(st.binary(min_size=1))
def test_what_is_encoded_is_parsed_to_the_same_but_for_line_ends(data: bytes) -> None:
    (event,) = parse(encode(data))
    assert event == ServerSentEvent(b"\n".join(data.splitlines()))


def test_the_last_id_and_the_time_to_wait_are_known_without_an_event_and_carried_on() -> None:
    parser = sse.Parser()
    assert (parser.last_id, parser.retry_ms) == (None, None)
    assert parser.feed(b"id: e-1\nretry: 250\ndata:\n\nid: e-2\nretry: soon\n\n")[0].data == b""
    assert (parser.last_id, parser.retry_ms) == ("e-2", 250)

    further = sse.Parser(parser.last_id, parser.retry_ms)
    further.feed(b"data: x\n\n")
    assert (further.last_id, further.retry_ms) == ("e-2", 250)


def test_the_id_of_an_event_that_has_not_ended_is_no_place_to_go_on_from() -> None:
    parser = sse.Parser("e-1")
    parser.feed(b"id: e-2\ndata: never com")
    assert parser.last_id == "e-1"

    parser.feed(b"plete\n\n")
    assert parser.last_id == "e-2"
