"""What the demo shows."""

import io
import re
from typing import Any

import pytest
from rich.console import Console, RenderableType

from gateway.analytics.models import CallGroup, Durations
from gateway.calls import UNKNOWN
from gateway.demo.counts import CountKey, Counts
from gateway.demo.display import DisplayData, comparison, live_table, log_line
from gateway.demo.fixtures import MEMBERS

DURATIONS = Durations(avg=40.0, p50=30.0, p95=120.4, p99=410.0)
NO_DURATIONS = Durations(avg=None, p50=None, p95=None, p99=None)
ALICE = CountKey("engineering", "alice-cursor", None)


def group(workspace: str = "engineering", **fields: Any) -> tuple[str, CallGroup]:
    return workspace, CallGroup(**{"calls": 40, "errors": 4, "duration_ms": DURATIONS, **fields})


DATA = DisplayData(
    members=[group(token_id="alice-cursor")],
    recent_members=[group(token_id="alice-cursor", calls=25)],
    tools=[
        group(server_slug="github", tool_name="create_issue", calls=30),
        group(server_slug="github", tool_name="_unknown", calls=10, duration_ms=NO_DURATIONS),
    ],
    recent_tools=[group(server_slug="github", tool_name="create_issue", calls=15)],
    counted=Counts({ALICE: 41}),
)


HEIGHT = 50


def all_members(calls: int = 98765) -> DisplayData:
    """The demo after a long while: every member, and every tool that they call."""
    patterns = {(member.workspace, pattern.tool, pattern.exists) for member in MEMBERS for pattern in member.patterns}
    tools = [
        group(workspace, server_slug=server, tool_name=tool if exists else UNKNOWN, calls=calls, errors=calls)
        for workspace, (server, _, tool), exists in sorted((w, t.partition("__"), e) for w, t, e in patterns)
    ]
    members = [group(token_id=member.token_id, calls=calls, errors=calls) for member in MEMBERS]
    return DisplayData(members, members, tools, tools, Counts({ALICE: calls}))


def printed(content: RenderableType, width: int) -> list[str]:
    """The lines as a terminal of this width has them."""
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(content)
    return capture.get().splitlines()


def rendered(content: RenderableType) -> list[list[str]]:
    """The cells of each row, which two spaces separate."""
    return [re.split(r" {2,}", line.strip()) for line in printed(content, 200)]


def test_a_member_is_shown_with_the_apis_numbers_and_the_clients_own_count() -> None:
    [alice] = [row for row in rendered(live_table(DATA, HEIGHT)) if row[0] == "Alice Cursor"]

    assert alice == ["Alice Cursor", "engineering", "2.5", "40", "41", "10.0%", "30.0", "120.4"]


def test_a_member_without_a_call_is_shown_all_the_same() -> None:
    [bot] = [row for row in rendered(live_table(DATA, HEIGHT)) if row[0] == "Triage Bot"]

    assert bot == ["Triage Bot", "support", "-", "0", "0", "-", "-", "-"]


def test_tools_are_shown_most_called_first() -> None:
    rows = [row for row in rendered(live_table(DATA, HEIGHT)) if row[0].startswith("github")]

    assert rows == [
        ["github__create_issue", "engineering", "1.5", "30", "13.3%", "30.0", "120.4"],
        ["github__(unknown)", "engineering", "0.0", "10", "40.0%", "-", "-"],
    ]


def test_unknown_tools_are_told_apart_by_their_server() -> None:
    unknown = [group(server_slug=slug, tool_name=UNKNOWN) for slug in ("github", "mail", UNKNOWN)]
    data = DATA._replace(tools=unknown, recent_tools=[group(server_slug="mail", tool_name=UNKNOWN, calls=20)])

    rows = {row[0]: row[2] for row in rendered(live_table(data, HEIGHT)) if "unknown" in row[0]}

    assert rows == {"github__(unknown)": "0.0", "mail__(unknown)": "2.0", "(unknown server)": "0.0"}


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (60, 20)])
def test_both_tables_fit_into_the_terminal_and_only_names_are_cut(size: tuple[int, int]) -> None:
    lines = printed(live_table(all_members(), size[1]), size[0])

    assert max(map(len, lines)) <= size[0]
    assert len(lines) < size[1]
    assert not any("…" in line for line in lines) or size[0] == 60
    numbers = [line for line in lines if "98765" in line]
    assert len(numbers) > 10
    assert all(re.search(r" 9876\.5 +98765 +(98765 +|0 +)?100\.0% +30\.0 +120\.4$", line) for line in numbers)


def test_a_terminal_of_80_columns_shows_who_and_what_how_often_and_how_slow() -> None:
    lines = printed(live_table(all_members(), 24), 80)

    assert [line.split() for line in lines if line.startswith(("member", "tool"))] == [
        ["member", "workspace", "calls/s", "calls", "client", "errors", "p50", "ms", "p95", "ms"],
        ["tool", "workspace", "calls/s", "calls", "errors", "p50", "ms", "p95", "ms"],
    ]


def test_in_a_log_it_is_one_line() -> None:
    expected = "  2.5 calls/s, 40 calls, 10.0% errors, slowest github__create_issue p95 120 ms; clients counted 41"

    assert log_line(DATA) == expected


def test_before_the_first_call_the_line_says_so() -> None:
    assert log_line(DisplayData([], [], [], [], Counts())) == "  0.0 calls/s, 0 calls, - errors; clients counted 0"


def test_the_comparison_marks_what_differs() -> None:
    failed = ALICE._replace(error_type="tool_error")

    rows = rendered(
        comparison(Counts({ALICE: 5, failed: 2}), Counts({ALICE: 5, failed: 2}), Counts({ALICE: 4, failed: 2}))
    )

    assert ["Alice Cursor", "success", "5", "5", "4", "differs"] in rows
    assert ["Alice Cursor", "tool_error", "2", "2", "2"] in rows
    assert ["all", "7", "7", "6"] in rows
