"""What `callscope top` shows, whatever the terminal's size."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from gateway.analytics.models import (
    CallCounts,
    CallGroup,
    CallSummary,
    Durations,
    ErrorCount,
    Overview,
    Timeline,
    TimelineSeries,
)
from gateway.calls import UNKNOWN, ErrorType
from gateway.terminal.top_view import Caption, Outage, TopData, render, shares
from tests.terminal.observer_process import call

NOW = datetime(2026, 11, 23, 14, 10, tzinfo=UTC)
CAPTION = Caption("engineering", "last 5m", UTC)
TIMES = Durations(avg=40.0, p50=30.0, p95=120.4, p99=1410.0)


def group(tool: str, calls: int, errors: int = 0, server: str = "github") -> CallGroup:
    return CallGroup(server_slug=server, tool_name=tool, calls=calls, errors=errors, duration_ms=TIMES)


def a_call(second: int, **changes: Any) -> CallSummary:
    begin_ns = (int(NOW.timestamp()) - 60 + second) * 10**9
    fields = {"timestamp_ns": begin_ns, "token_id": "alice-cursor", "duration_ms": 10.0 * second, **changes}
    return CallSummary.of(call(second, **fields))


def overview(calls: int, errors: int, members: int, durations: Durations, **by_type: int) -> Overview:
    return Overview(
        calls=CallCounts(range=calls, today=calls, week=calls, month=calls),
        success_rate=None,
        active_tokens=members,
        errors=errors,
        duration_ms=durations,
        errors_by_type=[ErrorCount(error_type=ErrorType(name), calls=number) for name, number in by_type.items()],
    )


def timeline(calls: list[int], errors: list[int]) -> Timeline:
    return Timeline(step_s=5, buckets=[], series=[TimelineSeries(calls=calls, errors=errors)])


FAILED = {
    "status": "error",
    "error_type": ErrorType.TOOL_ERROR,
    "error_message": "no such repository: acme/gateway",
}
VIEW = TopData(
    overview=overview(1234, 62, 5, TIMES, tool_error=60, rate_limited=2),
    tools=[group("create_issue", 1000, 60), group("search_issues", 232), group(UNKNOWN, 2, 2)],
    calls_of_now=[group("create_issue", 25), group("search_issues", 10)],
    timeline=timeline([0, 10, 80, 40], [0, 0, 9, 0]),
    recent=[a_call(30), a_call(59), a_call(10)],
    failed=[a_call(20, **FAILED), a_call(19, token_id="ci-bot", **FAILED)],
)
QUIET = TopData(
    overview=overview(0, 0, 0, Durations(avg=None, p50=None, p95=None, p99=None)),
    tools=[],
    calls_of_now=[],
    timeline=timeline([0, 0], [0, 0]),
    recent=[],
    failed=[],
)


def busy() -> TopData:
    """More of everything than fits, under names as long as they come."""
    tools = [group(f"tool-{i}-{'x' * 60}", 9_876_543, 1_234_567) for i in range(90)]
    calls = [a_call(i % 60, token_id="t" * 64, tool_name="y" * 90, **(FAILED | {"error_message": "z" * 900}))
             for i in range(99)]  # fmt: skip
    return VIEW._replace(tools=tools, calls_of_now=tools, recent=calls, failed=calls)


def shown(view: TopData = VIEW, size: tuple[int, int] = (100, 40), away: Outage | None = None) -> list[str]:
    """The lines as a terminal of this size has them."""
    console = Console(file=io.StringIO(), width=size[0], height=size[1])
    with console.capture() as capture:
        console.print(render(view, CAPTION, now=NOW, outage=away, size=size))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_the_first_lines_say_what_it_is_of_how_much_how_bad_and_how_slow() -> None:
    title, totals, _, errors = shown()[:4]

    assert title.split() == ["callscope", "top", "engineering", "last", "5m", "14:10:00", "UTC"]
    assert totals == "3.5 calls/s  1,234 calls  5.0% errors  p50 30.0 p95 120.4 p99 1,410 ms  5 members"
    assert errors == "tool_error 60   rate_limited 2"


def test_calls_over_time_are_drawn_by_the_highest() -> None:
    assert shown()[2] == " ▁█▄  most in 5 s: 80"


def test_a_tool_has_its_calls_of_now_and_what_the_range_had() -> None:
    lines = [line.split() for line in shown() if line.startswith("github__")]

    assert lines == [
        ["github__create_issue", "2.5", "1,000", "6.0%", "30.0", "120.4"],
        ["github__search_issues", "1.0", "232", "0.0%", "30.0", "120.4"],
        ["github__(unknown)", "0.0", "2", "100.0%", "30.0", "120.4"],
    ]


def test_the_slowest_calls_come_slowest_first() -> None:
    lines = shown()
    at = next(i for i, line in enumerate(lines) if "slowest of the last 3 calls" in line)

    assert [line.split() for line in lines[at + 1 : at + 4]] == [
        [f"14:09:{second}", "github__create_issue", "alice-cursor", "success", f"{second}0.0", "ms"]
        for second in ("59", "30", "10")
    ]


def test_calls_that_failed_have_their_message() -> None:
    assert shown()[-2].split(maxsplit=4) == [
        "14:09:20", "github__create_issue", "alice-cursor", "tool_error", "no such repository: acme/gateway",
    ]  # fmt: skip
    assert shown(size=(80, 24))[-1] == "14:09:19  github__create_issue  tool_error no such repository: acme/gateway"


def test_while_the_observer_is_away_it_says_since_when_and_why_above_what_it_knew() -> None:
    lines = shown(away=Outage(datetime(2026, 11, 23, 14, 8, 5, tzinfo=UTC), "Connection refused"))

    assert lines[1] == "the observer is away since 14:08:05 (Connection refused); this is its last state:"
    assert any(line.startswith("github__create_issue") for line in lines)


def test_before_the_first_call_nothing_is_made_up() -> None:
    lines = shown(QUIET)

    assert lines[1] == "0.0 calls/s  0 calls  - errors  p50 - p95 - p99 - ms  0 members"
    assert lines[3] == "no call failed"


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60), (60, 15), (40, 10)])
def test_it_fills_the_terminal_and_fits_into_it(size: tuple[int, int]) -> None:
    lines = shown(busy(), size)

    assert len(lines) == size[1]
    assert max(map(len, lines)) <= size[0]


def test_at_80_by_24_every_part_has_lines_and_every_number_is_whole() -> None:
    lines = shown(busy(), (80, 24))
    tools = [line for line in lines if line.startswith("github__tool")]
    failed = [line for line in lines if " tool_error " in line and "zz" in line]

    assert (len(tools), len(failed)) == (9, 4)
    assert all(line.split()[-5:] == ["987654.3", "9,876,543", "12.5%", "30.0", "120.4"] for line in tools)


def test_where_there_is_more_room_the_failed_calls_have_a_member() -> None:
    assert not any("ci-bot" in line for line in shown(size=(80, 24)))
    assert any("ci-bot" in line for line in shown(size=(100, 24)))


@given(st.integers(-5, 60), st.tuples(*[st.integers(0, 40)] * 3))
def test_no_line_is_left_while_a_part_could_use_it(lines: int, needs: tuple[int, int, int]) -> None:
    given_lines = shares(lines, needs)

    assert sum(given_lines) == max(min(lines, sum(needs)), 0)
    assert all(has <= need for has, need in zip(given_lines, needs, strict=True))
