"""W3C trace context: which parent counts, and what is linked."""

import pytest
from msgspec import Raw

from gateway.mcp.trace_context import SpanContext, Trace, begin, parse

T1, T2 = "0af7651916cd43dd8448eb211c80319c", "4bf92f3577b34da6a3ce929d0e0e4736"
S1, S2 = "b7ad6b7169203331", "00f067aa0ba902b7"
NEW_TRACE, SERVER, CLIENT = "1" * 32, "2" * 16, "3" * 16
DIGITS = NEW_TRACE + SERVER + CLIENT


@pytest.mark.parametrize(
    ("traceparent", "flags"),
    [
        (f"00-{T1}-{S1}-01", 1),
        (f"00-{T1}-{S1}-00", 0),
        (f"00-{T1}-{S1}-03", 3),
        (f"00-{T1}-{S1}-ff", 255),
        (f"01-{T1}-{S1}-01", 1),
        (f"fe-{T1}-{S1}-01-what-may-come", 1),
        (f"cc-{T1}-{S1}-01-", 1),
    ],
)
def test_a_valid_traceparent_is_taken_with_its_flags(traceparent: str, flags: int) -> None:
    assert parse(traceparent, "a=1") == SpanContext(T1, S1, flags, "a=1")


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        f"00-{T1}-{S1}",
        f"00-{T1}-{S1}-1",
        f"00-{T1}-{S1}-01-extra",
        f"00-{T1}-{S1}-01-",
        f"00-{T1}-{S1}-01\n",
        f" 00-{T1}-{S1}-01",
        f"00-{T1.upper()}-{S1}-01",
        f"00-{T1}-{S1}-0G",
        f"00-{'0' * 32}-{S1}-01",
        f"00-{T1}-{'0' * 16}-01",
        f"00-{T1[:-1]}-{S1}-01",
        f"00-{T1}-{S1}0-01",
        f"00_{T1}_{S1}_01",
        f"ff-{T1}-{S1}-01",
        f"0-{T1}-{S1}-01",
        f"01-{T1}-{S1}-01extra",
    ],
)
def test_an_invalid_traceparent_is_none(traceparent: str) -> None:
    assert parse(traceparent) is None


def raw(text: str) -> Raw:
    return Raw(f'"{text}"'.encode())


def header(trace_id: str, span_id: str, flags: str = "01") -> bytes:
    return f"00-{trace_id}-{span_id}-{flags}".encode()


def in_meta(trace_id: str, span_id: str, flags: str = "01") -> dict[str, Raw]:
    return {"traceparent": raw(f"00-{trace_id}-{span_id}-{flags}")}


NEW = Trace(NEW_TRACE, SERVER, CLIENT, 1)


def test_without_a_parent_a_new_trace_begins() -> None:
    assert begin(DIGITS, {}, None) == NEW
    assert begin(DIGITS, {"tracestate": raw("a=1"), "baggage": raw("b=2")}, None, b"c=3") == NEW


def test_the_parent_in_meta_counts_and_its_own_tracestate() -> None:
    trace = begin(DIGITS, {**in_meta(T1, S1, "00"), "tracestate": raw("a=1")}, None, b"b=2")
    assert trace == Trace(T1, SERVER, CLIENT, 0, "a=1", S1)


def test_without_one_in_meta_the_headers_counts_and_its_own_tracestate() -> None:
    trace = begin(DIGITS, {"tracestate": raw("a=1")}, header(T2, S2, "03"), b"b=2")
    assert trace == Trace(T2, SERVER, CLIENT, 3, "b=2", S2)


def test_of_two_parents_meta_counts_and_the_header_is_a_link() -> None:
    trace = begin(DIGITS, in_meta(T1, S1), header(T2, S2, "00"), b"b=2")
    assert trace == Trace(T1, SERVER, CLIENT, 1, None, S1, SpanContext(T2, S2, 0, "b=2"))


def test_two_spans_of_one_trace_are_linked_too_but_a_span_not_to_itself() -> None:
    link = begin(DIGITS, in_meta(T1, S1), header(T1, S2)).link
    assert link == SpanContext(T1, S2, 1)
    assert begin(DIGITS, in_meta(T1, S1, "01"), header(T1, S1, "00")).link is None


@pytest.mark.parametrize(
    "meta",
    [
        {"traceparent": raw("nonsense")},
        {"traceparent": Raw(b"7")},
        {"traceparent": Raw(b"null")},
        {"traceparent": Raw(b'{"a":1}')},
        {"traceparent": Raw(b'"\xff"')},
        {"traceparent": raw(f"00-{'0' * 32}-{S1}-01")},
    ],
)
def test_an_invalid_parent_in_meta_leaves_the_headers_or_a_new_trace(meta: dict[str, Raw]) -> None:
    assert begin(DIGITS, meta, header(T2, S2)) == Trace(T2, SERVER, CLIENT, 1, None, S2)
    assert begin(DIGITS, meta, None) == NEW


def test_an_invalid_header_is_neither_parent_nor_link() -> None:
    assert begin(DIGITS, in_meta(T1, S1), b"\xff nonsense") == Trace(T1, SERVER, CLIENT, 1, None, S1)
    assert begin(DIGITS, {}, b"\xff nonsense") == NEW


def test_a_tracestate_in_meta_that_is_no_text_is_left_out() -> None:
    assert begin(DIGITS, {**in_meta(T1, S1), "tracestate": Raw(b"[1]")}, None).tracestate is None
