"""Words and numbers as a terminal shows them."""

from datetime import UTC
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.calls import UNKNOWN
from gateway.terminal.formatting import duration, full_time, one_line, plural, tool_label


@given(st.text())
def test_no_text_breaks_a_line_or_commands_a_terminal(text: str) -> None:
    assert one_line(text).isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no such\n\n  repository\t", "no such repository"),
        ("\x1b]0;title\x07\x9b31m", "]0;title 31m"),
        ("\u202eevil\u2066", "evil"),
        ("naïve 日本語", "naïve 日本語"),
    ],
)
def test_what_can_be_read_stays(text: str, shown: str) -> None:
    assert one_line(text) == shown


def test_names_that_no_catalog_has_are_told_as_such() -> None:
    assert tool_label("github", "create_issue") == "github__create_issue"
    assert tool_label("github", UNKNOWN) == "github__(unknown)"
    assert tool_label(UNKNOWN, UNKNOWN) == "(unknown server)"


@pytest.mark.parametrize(("ms", "shown"), [(0.04, "0.0 ms"), (999.9, "999.9 ms"), (1000, "1.0 s"), (61_000, "61.0 s")])
def test_a_duration_has_the_unit_that_fits(ms: float, shown: str) -> None:
    assert duration(ms) == shown


def test_one_is_no_plural() -> None:
    assert [plural(number, "call") for number in (0, 1, 1234)] == ["0 calls", "1 call", "1,234 calls"]


def test_a_time_is_shown_in_a_zone() -> None:
    timestamp = "2026-11-23T23:30:00.120Z"

    assert full_time(timestamp, UTC) == timestamp
    assert full_time(timestamp, ZoneInfo("Europe/Berlin")) == "2026-11-24T00:30:00.120+01:00"
