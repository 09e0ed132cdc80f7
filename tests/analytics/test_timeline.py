"""Buckets of a timeline where clocks change: of days, of weeks, and of what is no whole day."""

from bisect import bisect_right
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.analytics.periods import NS, Range, epoch_ns, rfc3339
from gateway.analytics.timeline import bucket_count, bucket_edges, origin_changes
from gateway.ledger.queries import OriginChange

DAY = 86_400
ZONES = [
    "UTC", "Europe/Berlin", "America/Havana", "America/Sao_Paulo", "Asia/Beirut", "Asia/Kolkata", "Pacific/Apia",
    "America/St_Johns", "Australia/Lord_Howe",
]  # fmt: skip


def span(begin: str, end: str) -> Range:
    return Range(epoch_ns(datetime.fromisoformat(begin)), epoch_ns(datetime.fromisoformat(end)), clamped=False)


BERLIN, SAO_PAULO, APIA = "Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia"


def edges(begin: str, end: str, step_s: int, zone: str) -> list[str]:
    """To the minute, the day's number and the time."""
    return [rfc3339(ns)[8:16] for ns in bucket_edges(span(begin, end), step_s * NS, ZoneInfo(zone))]


@pytest.mark.parametrize(
    ("zone", "begin", "end", "step_s", "expected"),
    [
        ("UTC", "2026-11-23T14:10Z", "2026-11-25T00:00Z", DAY, ["23T00:00", "24T00:00", "25T00:00"]),
        ("UTC", "2026-11-23T14:10Z", "2026-11-25T00:01Z", DAY, ["23T00:00", "24T00:00", "25T00:00", "26T00:00"]),
        # 25 hours on the 25th, 23 on the 29th of March
        (BERLIN, "2026-10-24T12:00Z", "2026-10-26T12:00Z", DAY, ["23T22:00", "24T22:00", "25T23:00", "26T23:00"]),
        (BERLIN, "2026-03-28T12:00Z", "2026-03-30T12:00Z", DAY, ["27T23:00", "28T23:00", "29T22:00", "30T22:00"]),
        (BERLIN, "2026-10-20T12:00Z", "2026-10-28T12:00Z", 7 * DAY, ["18T22:00", "25T23:00", "01T23:00"]),
        # the last hour of a day of 25, with which the range ends
        (BERLIN, "2026-10-25T12:00Z", "2026-10-25T22:59Z", DAY, ["24T22:00", "25T23:00"]),
        # what is no whole day is equally long all the way
        (BERLIN, "2026-10-24T22:00Z", "2026-10-25T12:00Z", DAY // 2, ["24T22:00", "25T10:00", "25T22:00"]),
        # midnight is skipped, midnight comes twice, a date is skipped
        (SAO_PAULO, "2018-11-03T12:00Z", "2018-11-05T12:00Z", DAY, ["03T03:00", "04T03:00", "05T02:00", "06T02:00"]),
        ("America/Havana", "2026-11-01T05:30Z", "2026-11-01T06:00Z", DAY, ["01T04:00", "02T05:00"]),
        (APIA, "2011-12-29T12:00Z", "2011-12-31T12:00Z", DAY, ["29T10:00", "30T10:00", "31T10:00", "01T10:00"]),
        # clocks go back from one minute behind midnight: the date before comes again
        ("America/St_Johns", "2010-11-07T02:40Z", "2010-11-07T12:00Z", DAY, ["07T02:30", "08T03:30"]),
    ],
)  # fmt: skip
def test_a_day_begins_at_its_midnight_whatever_the_clock_did_before(
    zone: str, begin: str, end: str, step_s: int, expected: list[str]
) -> None:
    assert edges(begin, end, step_s, zone) == expected


def test_an_empty_range_at_midnight_has_no_bucket() -> None:
    empty = span("2026-11-23T00:00Z", "2026-11-23T00:00Z")
    for step_s in (3600, DAY):
        assert len(bucket_edges(empty, step_s * NS, ZoneInfo("UTC"))) == 1
        assert bucket_count(empty, step_s * NS, ZoneInfo("UTC")) == 0


def test_without_a_clock_change_there_is_one_origin() -> None:
    assert origin_changes([10, 20, 30], 10) == []


def test_a_longer_and_a_shorter_day_shift_what_comes_behind() -> None:
    assert origin_changes([0, 24, 49, 73], 24) == [OriginChange(from_ns=25, origin_ns=1)]
    assert origin_changes([0, 24, 47, 71], 24) == [OriginChange(from_ns=24, origin_ns=-1)]


@given(
    st.sampled_from(ZONES),
    st.integers(0, 2_000_000_000),
    st.integers(1, 500 * DAY),
    st.sampled_from([3600, 7000, DAY // 2, DAY, 2 * DAY, 3 * DAY, 7 * DAY, 28 * DAY, 366 * DAY]),
    st.data(),
)
def test_a_time_is_counted_in_the_bucket_between_whose_edges_it_is(
    name: str, begin_s: int, length_s: int, step_s: int, data: st.DataObject
) -> None:
    asked, zone, step_ns = Range(begin_s * NS, (begin_s + length_s) * NS, clamped=False), ZoneInfo(name), step_s * NS
    found = bucket_edges(asked, step_ns, zone)
    near = st.builds(lambda edge, off: edge + off, st.sampled_from(found), st.integers(-7200 * NS, 7200 * NS))
    ns = min(max(data.draw(near | st.integers(asked.from_ns, asked.to_ns - 1)), asked.from_ns), asked.to_ns - 1)

    origin_ns = found[0]
    for shift in origin_changes(found, step_ns):
        origin_ns = shift.origin_ns if ns >= shift.from_ns else origin_ns
    assert (ns - origin_ns) // step_ns == bisect_right(found, ns) - 1

    assert found[0] <= asked.from_ns < found[1]
    assert found[-2] < asked.to_ns <= found[-1]
    assert all(begin < end for begin, end in pairwise(found))
    assert 0 <= bucket_count(asked, step_ns, zone) - (len(found) - 1) <= 1
    if step_s % DAY == 0:
        clocks = [datetime.fromtimestamp(edge // NS, zone) for edge in found]
        assert all((clock - timedelta(hours=1, seconds=1)).date() < clock.date() for clock in clocks)
