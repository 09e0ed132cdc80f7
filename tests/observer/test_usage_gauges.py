"""The usage gauges: what the ledger has counted this month, beside metrics that do not need it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.calls import ErrorType
from gateway.config import Config
from gateway.ledger import Ledger
from gateway.ledger.duckdb_driver import DuckLedger
from gateway.ledger.totals import Totals
from gateway.observer.usage_metrics import LedgerUsage
from tests.observer.counting import Clock, batch, call, configuration, named, sink_at, value

NOVEMBER = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1e9)
NOW_NS = Clock().ns


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = DuckLedger.open(tmp_path / "ledger.duckdb")
    yield ledger
    ledger.close()


def usage_of(ledger: Ledger, config: Config) -> LedgerUsage:
    usage = LedgerUsage(ledger, clock=lambda: NOW_NS)
    usage.configure(config)
    return usage


def test_usage_is_the_months_calls_of_each_configured_workspace_that_no_limit_refused(ledger: Ledger) -> None:
    limited = {"status": "error", "error_type": ErrorType.RATE_LIMITED}
    with ledger.transaction() as transaction:
        transaction.insert(
            [
                call(0, timestamp_ns=NOVEMBER - 1),
                call(1, timestamp_ns=NOVEMBER),
                call(2, timestamp_ns=NOW_NS - 1),
                call(3, timestamp_ns=NOW_NS - 1, **limited),
                call(4, timestamp_ns=NOW_NS - 1, status="error", error_type=ErrorType.TOOL_ERROR),
                call(5, timestamp_ns=NOW_NS),
                call(6, timestamp_ns=NOVEMBER, workspace_id="configured no more"),
            ]
        )

    assert usage_of(ledger, configuration())() == {
        "engineering": Totals(used=3, today=3, week=3, month=4),
        "lab": Totals(),
    }
    assert usage_of(ledger, Config())() == {}


def test_calls_are_counted_since_the_day_the_week_and_the_month_began_in_utc(tmp_path: Path, ledger: Ledger) -> None:
    begins = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 16, 18)]  # a Sunday, the Monday and this Wednesday
    moments = [int(begin.timestamp() * 1e9) - early for begin in begins for early in (0, 1)]
    with ledger.transaction() as transaction:
        transaction.insert([call(i, timestamp_ns=moment) for i, moment in enumerate(moments)])
    sink = sink_at(tmp_path, Clock(), usage=usage_of(ledger, configuration()))
    sink.configure(configuration())

    counted = {
        labels["period"]: calls
        for labels, calls in named(sink, "mcp_gateway_ledger_calls")
        if labels["workspace"] == "engineering"
    }

    assert counted == {"today": 1, "week": 3, "month": 5}


def test_what_a_plan_retains_no_more_is_used_and_not_shown(ledger: Ledger) -> None:
    eight_days = 8 * 86_400 * 10**9
    with ledger.transaction() as transaction:
        transaction.insert([call(1, timestamp_ns=NOW_NS - eight_days), call(2, timestamp_ns=NOW_NS - 1)])
    config = Config.model_validate({"workspaces": {"engineering": {"plan": "free"}}})

    assert usage_of(ledger, config)() == {"engineering": Totals(used=2, today=1, week=1, month=1)}


def test_a_ledger_that_is_away_takes_its_own_gauges_from_a_scrape_and_no_other(tmp_path: Path, ledger: Ledger) -> None:
    sink = sink_at(tmp_path, Clock(), usage=usage_of(ledger, configuration()))
    sink.configure(configuration())
    sink.process(batch(call()))
    before = named(sink, "mcp_gateway_usage_calls")
    ledger.close()

    assert before == [({"workspace": "engineering"}, 0), ({"workspace": "lab"}, 0)]
    assert named(sink, "mcp_gateway_usage_calls") == []
    assert value(sink, "mcp_gateway_tool_calls_total") == 1
    assert value(sink, "mcp_gateway_plan_limit_calls") == 500_000
