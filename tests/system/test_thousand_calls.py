"""1,000 calls of five members, 5 % failing in each way there is: every signal counts what the clients counted."""

import asyncio
import contextlib
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gateway.calls import ErrorType
from tests.backends import installed
from tests.observer.otlp_collector import collecting
from tests.system.clients import Counts, Mode, Planned, make_all
from tests.system.gateway_process import Gateway, eventually, running
from tests.system.signal_counts import from_api, from_ledger, from_metrics, from_otlp, live_stream, prometheus

EACH = 50
"""Calls that fail in each way; the ways that are left make a thousand with those that succeed."""
MODES: dict[str, Mode] = {"alice": "auto", "bob": "legacy", "carol": "auto", "dave": "legacy", "ci-bot": "auto"}
MODERN = ("alice", "carol")
"""Those whose giving up ends a call."""
HONEST = ("modern", "legacy", "local")
OPERATIONS = 2
"""Requests of `ci-bot` that are no calls: `server/discover` and `tools/list`."""
MEMBERS: dict[str, dict[str, Any]] = {
    **{name: {} for name in MODES},
    "ci-bot": {"kind": "bot", "rate_limit": f"{150 + OPERATIONS}/hour"},
}
WAYS = {
    ErrorType.TOOL_ERROR: [(server, "tool_error") for server in HONEST],
    ErrorType.JSONRPC_ERROR: [(server, "jsonrpc_error") for server in HONEST],
    ErrorType.UPSTREAM_TIMEOUT: [("hasty", "hang")],
    ErrorType.UPSTREAM_UNREACHABLE: [("dead", "echo")],
    ErrorType.UPSTREAM_HTTP_ERROR: [("broken", "http_error")],
    ErrorType.UPSTREAM_PROTOCOL_ERROR: [("broken", "garbage"), ("broken", "cut")],
    ErrorType.UNKNOWN_TOOL: [("modern", "nope"), ("local", "nope"), ("nowhere", "echo")],
}


def plan() -> list[Planned]:
    """The calls: 200 of each member, whose kinds alternate; what `ci-bot` has above its limit comes last."""
    calls: list[Planned] = []
    for targets in WAYS.values():
        calls += [Planned(list(MODES)[i % 5], *targets[i % len(targets)]) for i in range(EACH)]
    calls += [Planned(MODERN[i % 2], HONEST[i % 3], "hang", patience_s=1.0) for i in range(EACH)]
    for token_id in MODES:
        missing = 200 - sum(planned.token_id == token_id for planned in calls)
        calls += [Planned(token_id, HONEST[i % 3], "echo") for i in range(missing)]
    return sorted(calls, key=lambda planned: planned.token_id == "ci-bot" and planned.tool == "echo")


class Thousand(NamedTuple):
    """What the clients counted, and what every signal did."""

    clients: Counts
    signals: dict[str, Counts]


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory, servers: dict[str, dict[str, Any]]) -> Thousand:
    """The calls, made once for all tests of this file."""
    folder: Path = tmp_path_factory.mktemp("thousand")
    binary = shutil.which("prometheus")
    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(collecting())
        settings = {"otlp": {"endpoint": collector.url}}
        gateway = stack.enter_context(running(folder, servers, MEMBERS, settings=settings))
        sources: dict[str, Callable[[], Counts]] = {"otlp": lambda: from_otlp(collector)}
        if binary is not None:
            scraper = stack.enter_context(prometheus(Path(binary), folder / "prometheus", gateway))
            sources["prometheus"] = scraper.counts
        outcome = asyncio.run(_make(gateway, sources))
        assert gateway.stop() == 0, gateway.log()
        outcome.signals["ledger"] = from_ledger(gateway)
        return outcome


async def _make(gateway: Gateway, sources: dict[str, Callable[[], Counts]]) -> Thousand:
    """Make the calls, then let every source have the time to count all of them, and no more."""
    sources |= {"api": lambda: from_api(gateway), "metrics": lambda: from_metrics(gateway)}
    async with live_stream(gateway) as live:
        clients = await make_all(gateway, plan(), MODES)
        for count in (*sources.values(), lambda: live.counts):
            await asyncio.to_thread(eventually, lambda count=count: count().total() >= clients.total())
        return Thousand(clients, {name: count() for name, count in sources.items()} | {"live stream": live.counts})


def test_the_thousand_calls_are_a_thousand_and_fail_in_every_way(thousand: Thousand) -> None:
    by_error = Counter(dict.fromkeys(ErrorType, 0))
    for outcome, calls in thousand.clients.items():
        if outcome.error_type is not None:
            by_error[ErrorType(outcome.error_type)] += calls

    assert thousand.clients.total() == 1000
    assert by_error == {
        **dict.fromkeys(ErrorType, EACH),
        ErrorType.QUOTA_EXCEEDED: 0,
        ErrorType.GATEWAY_ERROR: 0,
    }


@pytest.mark.parametrize("signal", ["api", "ledger", "metrics", "live stream", "otlp"])
def test_a_signal_counts_what_the_clients_counted(thousand: Thousand, signal: str) -> None:
    """By member, server, tool, status and error type."""
    assert thousand.signals[signal] == thousand.clients


@pytest.mark.backend
def test_prometheus_counts_what_the_clients_counted(thousand: Thousand) -> None:
    installed("prometheus")
    assert thousand.signals["prometheus"] == thousand.clients
