"""Each PromQL query of each dashboard, asked of a real Prometheus that scrapes a real gateway with real calls."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import httpx
import pytest

from dashboards.promql import Scope
from dashboards.queries import calls, members
from tests.backends import installed
from tests.dashboards.generated_boards import BOARDS, Query, annotations, named_in, queries, variables
from tests.dashboards.promql import settled
from tests.system.clients import call, post, request
from tests.system.gateway_process import STDIO, TLS, Gateway, eventually, running, upstreams
from tests.system.signal_counts import Prometheus, prometheus

pytestmark = pytest.mark.backend

EMPTY: Final = {
    "Firing alerts": "no alert rule is loaded here",
    **dict.fromkeys(
        (
            "Success rate",
            "Average response time",
            "Calls each day",
            "Members of this month",
            "Tools of this month",
            "Average latency by server",
            "p95 latency by server",
        ),
        "they read recording rules, which are not loaded here: see tests/stack",
    ),
    **dict.fromkeys(
        ("Waiting in the Collector", "Queues in use", "Passed on", "Lost or refused", "Back ends"),
        "no Collector and no back end is scraped here: see tests/stack",
    ),
}
"""Panels that may say nothing here, and why."""
PERIODS: Final[tuple[Literal["today", "week", "month"], ...]] = ("today", "week", "month")
LIMIT: Final = 60
"""Calls a month that the plan allows: fewer than are made."""
BOTS_LIMIT: Final = 20
MADE: Final = {
    "alice": {"modern__echo": 30, "modern__tool_error": 8, "local__echo": 15, "dead__echo": 4, "modern__nope": 3},
    "ci-bot": {"modern__echo": 25, "local__echo": 5},
}
TOTAL: Final = sum(sum(tools.values()) for tools in MADE.values())
COUNTED: Final = [
    f"sum({name}) == {TOTAL} and sum(increase({name}[5m])) > {0.99 * TOTAL}"
    for name in (
        "mcp_gateway_tool_calls_total",
        "mcp_gateway_tool_call_duration_seconds_count",
        "mcp_gateway_overhead_seconds_count",
    )
]
"""Every call is in every scraped series, and was not at the scrape before: so that there is an increase."""


class Scraped(NamedTuple):
    """A gateway with calls, and the Prometheus that knows all of them."""

    gateway: Gateway
    prometheus: Prometheus


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """Calls that succeed and fail, of a member and of a bot over its limit; one request without a token."""
    binary = installed("prometheus")
    folder: Path = tmp_path_factory.mktemp("dashboards")
    settings = {
        "plans": {"enterprise": {"retention_days": 30, "calls_per_month": LIMIT}},
        "metrics": {"birth_interval": 3},
    }
    people = {"alice": {"name": "Alice Cursor"}, "ci-bot": {"kind": "bot", "rate_limit": f"{BOTS_LIMIT}/hour"}}
    with upstreams("modern") as urls:
        servers = {"modern": {"url": urls["modern"]}, "local": STDIO, "dead": {"url": "http://127.0.0.1:1/mcp"}}
        with (
            running(folder, servers, people, settings=settings) as gateway,
            prometheus(binary, folder / "prometheus", gateway) as scraper,
        ):
            eventually(
                lambda: scraper.query("up == 1")
            )  # a series that is born before the first scrape has no increase
            _make_calls(gateway)
            eventually(lambda: all(scraper.query(condition) for condition in COUNTED))
            yield Scraped(gateway, scraper)


def _make_calls(gateway: Gateway) -> None:
    post(gateway, request("tools/list"), "alice")
    httpx.post(gateway.url, **call("modern__echo"), timeout=10, verify=TLS)  # no token: turned away
    for member, tools in MADE.items():
        for tool, times in tools.items():
            for number in range(times):
                post(gateway, call(tool, number, n="1"), member)


def _asked(text: str) -> str:
    """A query with every variable on All, and short windows."""
    for name in named_in(text) - {"1"}:
        text = re.sub(rf"\${name}\b", ".*" if name == "error_type" else ".+", text)
    return settled(text)


@pytest.mark.parametrize("query", queries("prometheus"), ids=str)
def test_a_query_finds_something(scraped: Scraped, query: Query) -> None:
    found = scraped.prometheus.query(_asked(query.text))

    assert bool(found) != (query.panel in EMPTY), found


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS.keys())
def test_an_annotation_can_be_asked_for(scraped: Scraped, board: dict[str, Any]) -> None:
    for annotation in annotations(board):
        scraped.prometheus.query(_asked(annotation["expr"]))


@pytest.mark.parametrize(
    ("name", "value"),
    [("server", "local"), ("tool", "tool_error"), ("job", "callscope"), ("error_type", "rate_limited")],
)
def test_a_variable_has_the_values_that_there_are(scraped: Scraped, name: str, value: str) -> None:
    definition = variables(BOARDS["callscope-logs"])[name]["definition"]
    match = re.fullmatch(r"label_values\((.+), (\w+)\)", definition)
    assert match is not None

    found = scraped.prometheus.query(f"group by ({match[2]}) ({_asked(match[1])})")

    assert value in {series["metric"][match[2]] for series in found}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("member", {"text": "Alice Cursor", "value": "alice"}),
        ("workspace", {"text": "engineering", "value": "engineering"}),
    ],
)
def test_a_variable_shows_names(scraped: Scraped, name: str, value: dict[str, str]) -> None:
    variable = variables(BOARDS["callscope-overview"])[name]
    pattern = variable["regex"].strip("/").replace("(?<", "(?P<")
    question = re.sub(r"^query_result\((.+)\)$", r"\1", variable["definition"])

    shown = []
    for series in scraped.prometheus.query(_asked(question)):
        labels = ",".join(f'{label}="{text}"' for label, text in series["metric"].items())
        match = re.search(pattern, f"{{{labels}}} 1 1700000000000")
        assert match is not None
        shown.append(match.groupdict())

    assert value in shown


def by(scraped: Scraped, text: str, *labels: str) -> dict[tuple[str, ...], float]:
    """A query's values by some of its labels."""
    found = scraped.prometheus.query(_asked(text))
    return {tuple(series["metric"][label] for label in labels): float(series["value"][1]) for series in found}


def extrapolated(value: float, calls: int) -> bool:
    """Whether `increase()` may say this of so many calls: it reaches up to a scrape's time further at either end."""
    return calls - 0.01 <= value <= 2 * calls


def test_the_ledgers_numbers_are_exact(scraped: Scraped) -> None:
    assert [by(scraped, calls.count_in_ledger(Scope(), period))[()] for period in PERIODS] == [TOTAL] * 3


def test_counts_are_those_of_the_calls_but_for_what_prometheus_extrapolates(scraped: Scraped) -> None:
    counted = by(scraped, members.count(Scope(), "server", "tool"), "name", "server", "tool")

    assert extrapolated(counted["Alice Cursor", "modern", "echo"], 30)
    assert extrapolated(counted["Ci-Bot", "modern", "echo"], 25)
    assert extrapolated(counted["Alice Cursor", "modern", "_unknown"], 3)
    assert by(scraped, calls.failure_ratio(Scope(), "server"), "server")["dead",] == 1


def test_no_call_is_lost_by_the_join_of_names_even_of_a_member_who_is_gone(scraped: Scraped) -> None:
    everybodys = f"sum({members.count(Scope())}) / {calls.count(Scope())}"
    assert by(scraped, everybodys)[()] == pytest.approx(1, rel=1e-9)

    scraped.gateway.write(without="ci-bot")
    by_name = members.count(Scope())
    eventually(lambda: ("ci-bot",) in by(scraped, by_name, "name"))

    assert extrapolated(by(scraped, by_name, "name")["ci-bot",], 30)
    assert by(scraped, everybodys)[()] == pytest.approx(1, rel=1e-9)
