from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.months import DAY_NS, day_of, month_of


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("now", "label", "start", "end"),
    [
        ("2026-11-23T14:10Z", "2026-11", "2026-11-01T00:00Z", "2026-12-01T00:00Z"),
        ("2026-12-31T23:59Z", "2026-12", "2026-12-01T00:00Z", "2027-01-01T00:00Z"),
        ("2028-02-29T00:00Z", "2028-02", "2028-02-01T00:00Z", "2028-03-01T00:00Z"),
        ("2026-02-01T00:00Z", "2026-02", "2026-02-01T00:00Z", "2026-03-01T00:00Z"),
    ],
)
def test_a_plans_month_is_the_calendars_in_utc(now: str, label: str, start: str, end: str) -> None:
    assert month_of(ns(now)) == (label, ns(start), ns(end))


@given(st.integers(0, 2**63 - 1))
def test_every_moment_is_in_its_month_and_in_its_day(moment: int) -> None:
    month, day = month_of(moment), day_of(moment)
    assert month.start_ns <= day <= moment < day + DAY_NS <= month.end_ns
    assert month_of(month.start_ns) == month_of(month.end_ns - 1) == month
    assert timedelta(days=28) <= timedelta(microseconds=(month.end_ns - month.start_ns) // 1000) <= timedelta(days=31)
