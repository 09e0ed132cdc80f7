"""`callscope usage` shows what the API says."""

import json
from pathlib import Path

import pytest

from gateway.terminal.usage_command import bar
from tests.terminal.observer_process import WORKSPACES, Observer, call, run


def test_a_line_says_what_is_used_and_what_is_left(observer: Observer) -> None:
    printed = run("usage", "--config", str(observer.config))

    headings, line = printed.stdout.splitlines()
    assert " ".join(headings.split()) == "workspace tier period used limit remaining projected exhausted on"
    name, tier, _, used, limit, remaining, drawn, projected, exhausted = line.split()
    assert (name, tier, used, limit, remaining) == ("engineering", "pro", "10", "500,000", "499,990")
    assert drawn == "█░░░░░░░░░"
    assert int(projected.replace(",", "")) >= 10
    assert exhausted == "-"
    assert (printed.exit_code, printed.stderr) == (0, "")


def test_as_json_it_is_what_the_api_says_and_the_workspace(observer: Observer) -> None:
    [usage] = json.loads(run("usage", "--config", str(observer.config), "--json").stdout)

    counted = usage["usage"]["mcp_proxy_calls"]
    assert (usage["workspace_id"], usage["tier"]) == ("engineering", "pro")
    assert (counted["used"], counted["limit"], counted["remaining"], counted["exhausted_on"]) == (
        10, 500_000, 499_990, None,
    )  # fmt: skip


def test_every_workspace_has_a_line_and_a_limit_that_is_reached_is_dated(tmp_path: Path) -> None:
    workspaces = {**WORKSPACES, "large": {"plan": "enterprise"}, "small": {"plan": "tiny"}}
    with Observer(tmp_path, workspaces=workspaces, plans={"tiny": {"calls_per_month": 2}}) as observer:
        observer.write(call(i, workspace_id="small") for i in range(3))
        observer.holding([call(10)])
        lines = run("usage", "--config", str(observer.config)).stdout.splitlines()[1:]
        only = run("usage", "--config", str(observer.config), "--workspace", "small").stdout.splitlines()[1:]

    assert [line.split()[0] for line in lines] == ["engineering", "large", "small"]
    assert lines[1].split()[3:6] == ["0", "unlimited", "-"]
    _, _, _, used, limit, remaining, drawn, _, exhausted = lines[2].split()
    assert (used, limit, remaining, drawn) == ("3", "2", "0", "█" * 10)
    assert exhausted.count("-") == 2
    assert [line.split() for line in only] == [lines[2].split()]


@pytest.mark.parametrize(
    ("used", "limit", "drawn", "color"),
    [
        (0, 100, "░░░░░░░░░░", "dim"),
        (1, 100, "█░░░░░░░░░", "green"),
        (79, 100, "████████░░", "green"),
        (80, 100, "████████░░", "yellow"),
        (99, 100, "██████████", "yellow"),
        (100, 100, "██████████", "red"),
        (500, 100, "██████████", "red"),
        (0, 0, "██████████", "red"),
    ],
)
def test_the_bar_is_full_at_the_limit_and_warns_before_it(used: int, limit: int, drawn: str, color: str) -> None:
    found = bar(used, limit)

    assert found.plain == drawn
    assert found.spans[0].style == color


def test_without_a_limit_there_is_no_bar() -> None:
    assert bar(7, None).plain == ""
