from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.analytics.periods import NS, clamp, epoch_ns, moment_ns, period_start, rfc3339, starts


def ns(text: str) -> int:
    return epoch_ns(datetime.fromisoformat(text))


@pytest.mark.parametrize(
    ("now", "zone", "today", "week", "month"),
    [
        ("2026-11-25T10:00Z", "UTC", "2026-11-25T00:00Z", "2026-11-23T00:00Z", "2026-11-01T00:00Z"),
        ("2026-11-23T00:00Z", "UTC", "2026-11-23T00:00Z", "2026-11-23T00:00Z", "2026-11-01T00:00Z"),
        # The evening in one zone is tomorrow in another.
        ("2026-10-31T23:30Z", "Europe/Berlin", "2026-10-31T23:00Z", "2026-10-25T23:00Z", "2026-10-31T23:00Z"),
        ("2026-11-01T02:00Z", "America/New_York", "2026-10-31T04:00Z", "2026-10-26T04:00Z", "2026-10-01T04:00Z"),
        # Clocks went back on the 25th: that day, its week and its month began in summer time.
        ("2026-10-25T12:00Z", "Europe/Berlin", "2026-10-24T22:00Z", "2026-10-18T22:00Z", "2026-09-30T22:00Z"),
        ("2026-10-26T12:00Z", "Europe/Berlin", "2026-10-25T23:00Z", "2026-10-25T23:00Z", "2026-09-30T22:00Z"),
        # Clocks went forward on the 29th.
        ("2026-03-29T12:00Z", "Europe/Berlin", "2026-03-28T23:00Z", "2026-03-22T23:00Z", "2026-02-28T23:00Z"),
        # Midnight was skipped: the day began at 01:00.
        ("2018-11-04T12:00Z", "America/Sao_Paulo", "2018-11-04T03:00Z", "2018-10-29T03:00Z", "2018-11-01T03:00Z"),
        # Midnight came twice: the day began at the first one.
        ("2026-11-01T12:00Z", "America/Havana", "2026-11-01T04:00Z", "2026-10-26T04:00Z", "2026-11-01T04:00Z"),
        ("2026-11-01T05:30Z", "America/Havana", "2026-11-01T04:00Z", "2026-10-26T04:00Z", "2026-11-01T04:00Z"),
    ],
)
def test_the_day_the_week_and_the_month_begin_where_the_zone_says(
    now: str, zone: str, today: str, week: str, month: str
) -> None:
    assert starts(ns(now), ZoneInfo(zone)) == (ns(today), ns(week), ns(month))


@given(st.integers(0, 4_000_000_000 * NS), st.sampled_from(["Europe/Berlin", "America/Havana", "Asia/Beirut", "UTC"]))
def test_no_beginning_is_in_the_future_and_each_is_the_first_instant_of_its_date(now_ns: int, name: str) -> None:
    zone = ZoneInfo(name)
    begun = starts(now_ns, zone)
    now = datetime.fromtimestamp(now_ns // NS, zone)
    assert max(begun) <= now_ns
    first_dates = (now.date(), now.date() - timedelta(days=now.weekday()), now.date().replace(day=1))
    for start, first in zip(begun, first_dates, strict=True):
        assert datetime.fromtimestamp(start // NS, zone).date() == first
        assert datetime.fromtimestamp(start // NS - 1, zone).date() < first


@pytest.mark.parametrize(
    ("period", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("24h", 86_400), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_a_length_counts_back_from_now(period: str, seconds: int) -> None:
    assert period_start(period, 10**18, ZoneInfo("UTC")) == 10**18 - seconds * NS


def test_a_period_longer_than_the_epoch_begins_with_it() -> None:
    assert period_start("999999999w", 10**18, ZoneInfo("UTC")) == 0


@pytest.mark.parametrize(
    "period", ["", "0h", "01h", "h", "1", "1y", "-1h", "1.5h", "yesterday", "1h ", "٣h", "1" * 40 + "h"]
)
def test_a_wrong_period_has_no_start(period: str) -> None:
    assert period_start(period, 10**18, ZoneInfo("UTC")) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1795443000", 1_795_443_000 * NS),
        ("1795443000.123456789", 1_795_443_000_123_456_789),
        ("1970-01-01T00:00:01Z", NS),
        ("1970-01-01t00:00:01z", NS),
        ("1970-01-01T01:00:00.000000001+01:00", 1),
        ("2026-11-23T14:10:00.5-00:00", 1_795_443_000 * NS + NS // 2),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, expected: int) -> None:
    assert moment_ns(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-11-23",
        "2026-11-23T14:10:00",
        "2026-11-23T14:10:00 01:00",
        "2026-13-23T14:10:00Z",
        "2026-11-23T24:10:00Z",
        "2026-11-23T14:10:00+99:00",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59Z",
        "9999999999",
        "99999999999",
        "-1",
        "1e9",
    ],
)
def test_a_wrong_time_or_one_out_of_range_is_not_read(text: str) -> None:
    assert moment_ns(text) is None


@given(st.datetimes(datetime(1970, 1, 1), datetime(2262, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - Hypothesis adds the zone
def test_a_written_time_reads_back_to_the_millisecond(moment: datetime) -> None:
    written = rfc3339(epoch_ns(moment))
    assert moment_ns(written) == epoch_ns(moment) // 10**6 * 10**6
    assert len(written) == len("2026-11-23T14:10:00.123Z")


def test_a_plan_cuts_what_is_older_and_nothing_else() -> None:
    day = 86_400 * NS
    now = 1000 * day
    assert clamp(0, now, now_ns=now, retention_days=None) == (0, now, False)
    assert clamp(now - 7 * day, now, now_ns=now, retention_days=7) == (now - 7 * day, now, False)
    assert clamp(now - 7 * day - 1, now, now_ns=now, retention_days=7) == (now - 7 * day, now, True)
    assert clamp(0, 1, now_ns=now, retention_days=7) == (now - 7 * day, now - 7 * day, True)
