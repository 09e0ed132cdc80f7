"""What the demo shows."""

import io
from typing import Any

from rich.console import Console, RenderableType

from gateway.demo.counts import Counts, Outcome
from gateway.demo.screen import View, line, reckoning, table

DURATIONS = {"avg": 40.0, "p50": 30.0, "p95": 120.4, "p99": 410.0}
ALICE = Outcome("engineering", "alice-cursor", None)


def group(**fields: Any) -> dict[str, Any]:
    return {"workspace_id": "engineering", "calls": 40, "errors": 4, "duration_ms": DURATIONS, **fields}


VIEW = View(
    members=[group(token_id="alice-cursor")],
    recent_members=[group(token_id="alice-cursor", calls=25)],
    tools=[
        group(server_slug="github", tool_name="create_issue", calls=30),
        group(server_slug="github", tool_name="_unknown", calls=10, duration_ms=dict.fromkeys(DURATIONS)),
    ],
    recent_tools=[group(server_slug="github", tool_name="create_issue", calls=15)],
    counted=Counts({ALICE: 41}),
)


def rendered(content: RenderableType) -> list[list[str]]:
    """The cells of each row, without lines and padding."""
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as capture:
        console.print(content)
    rows = [[cell.strip() for cell in text.split("│")[1:-1]] for text in capture.get().splitlines()]
    return [row for row in rows if row]


def test_a_member_is_shown_with_the_apis_numbers_and_the_clients_own_count() -> None:
    [alice] = [row for row in rendered(table(VIEW)) if row[0] == "Alice Cursor"]

    assert alice == ["Alice Cursor", "engineering", "2.5", "40", "41", "10.0%", "30.0", "120.4"]


def test_a_member_without_a_call_is_shown_all_the_same() -> None:
    [bot] = [row for row in rendered(table(VIEW)) if row[0] == "Triage Bot"]

    assert bot == ["Triage Bot", "support", "-", "0", "0", "-", "-", "-"]


def test_tools_are_shown_most_called_first() -> None:
    rows = [row for row in rendered(table(VIEW)) if row[0].startswith(("github", "(unknown"))]

    assert rows == [
        ["github__create_issue", "engineering", "1.5", "30", "13.3%", "30.0", "120.4"],
        ["(unknown tool)", "engineering", "0.0", "10", "40.0%", "-", "-"],
    ]


def test_in_a_log_it_is_one_line() -> None:
    expected = "  2.5 calls/s, 40 calls, 10.0% errors, slowest github__create_issue p95 120 ms; clients counted 41"

    assert line(VIEW) == expected


def test_before_the_first_call_the_line_says_so() -> None:
    assert line(View([], [], [], [], Counts())) == "  0.0 calls/s, 0 calls, - errors; clients counted 0"


def test_the_reckoning_marks_what_differs() -> None:
    failed = ALICE._replace(error_type="tool_error")

    rows = rendered(
        reckoning(Counts({ALICE: 5, failed: 2}), Counts({ALICE: 5, failed: 2}), Counts({ALICE: 4, failed: 2}))
    )

    assert ["Alice Cursor", "success", "5", "5", "4", "differs"] in rows
    assert ["Alice Cursor", "tool_error", "2", "2", "2", ""] in rows
    assert ["all", "", "7", "7", "6", ""] in rows
