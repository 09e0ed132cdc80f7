"""The gauges of workspaces: what the configuration says, and what the ledger has counted."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from gateway.calls import ErrorType
from gateway.config import Config
from gateway.errors import LedgerUnavailableError
from gateway.ledger import Ledger
from gateway.ledger.duckdb_driver import DuckLedger, DuckSnapshot
from gateway.ledger.queries import Totals
from gateway.observer.workspace_metrics import WorkspaceMetrics
from tests.observer.events import Clock, batch, call, configuration, named, samples, sink_at, value

NOVEMBER = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp() * 1e9)
NOW_NS = Clock().ns


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = DuckLedger.open(tmp_path / "ledger.duckdb")
    yield ledger
    ledger.close()


def metrics_of(ledger: Ledger, config: Config) -> WorkspaceMetrics:
    metrics = WorkspaceMetrics(ledger, clock=lambda: NOW_NS)
    metrics.configure(config)
    return metrics


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

    assert metrics_of(ledger, configuration()).usage() == {
        "engineering": Totals(used=3, today=3, week=3, month=4),
        "lab": Totals(),
    }
    assert metrics_of(ledger, Config()).usage() == {}


def test_calls_are_counted_since_the_day_the_week_and_the_month_began_in_utc(ledger: Ledger) -> None:
    begins = [datetime(2026, 11, day, tzinfo=UTC) for day in (1, 16, 18)]  # a Sunday, the Monday and this Wednesday
    moments = [int(begin.timestamp() * 1e9) - early for begin in begins for early in (0, 1)]
    with ledger.transaction() as transaction:
        transaction.insert([call(i, timestamp_ns=moment) for i, moment in enumerate(moments)])

    counted = {
        labels["period"]: calls
        for labels, calls in named(metrics_of(ledger, configuration()), "mcp_gateway_ledger_calls")
        if labels["workspace"] == "engineering"
    }

    assert counted == {"today": 1, "week": 3, "month": 5}


def test_what_a_plan_retains_no_more_is_used_and_not_shown(ledger: Ledger) -> None:
    eight_days = 8 * 86_400 * 10**9
    with ledger.transaction() as transaction:
        transaction.insert([call(1, timestamp_ns=NOW_NS - eight_days), call(2, timestamp_ns=NOW_NS - 1)])
    config = Config.model_validate({"workspaces": {"engineering": {"plan": "free"}}})

    assert metrics_of(ledger, config).usage() == {"engineering": Totals(used=2, today=1, week=1, month=1)}


def test_a_ledger_that_is_away_takes_its_own_gauges_from_a_scrape_and_no_other(ledger: Ledger) -> None:
    metrics = metrics_of(ledger, configuration())
    before = named(metrics, "mcp_gateway_usage_calls")
    ledger.close()

    assert before == [({"workspace": "engineering"}, 0), ({"workspace": "lab"}, 0)]
    assert named(metrics, "mcp_gateway_usage_calls") == []
    assert value(metrics, "mcp_gateway_plan_limit_calls") == 500_000


class SilentLedger(DuckLedger):
    """Does not respond while `silent` is set, then fails, as behind a network that is cut off."""

    def __init__(self, connect: Callable[[], duckdb.DuckDBPyConnection], *, query_seconds: float = 30) -> None:
        super().__init__(connect, query_seconds=query_seconds)
        self.silent = threading.Event()
        self.cut_off = threading.Event()

    @contextlib.contextmanager
    def snapshot(self, *, seconds: float | None = None) -> Iterator[DuckSnapshot]:
        if self.silent.is_set():
            self.cut_off.wait(30)
            raise LedgerUnavailableError("it was cut off")
        with super().snapshot(seconds=seconds) as snapshot:
            yield snapshot


def test_a_ledger_that_does_not_respond_holds_no_scrape_up(tmp_path: Path) -> None:
    ledger = SilentLedger.open(tmp_path / "silent.duckdb")
    assert isinstance(ledger, SilentLedger)
    one_call = {"engineering": Totals(used=1, today=1, week=1, month=1), "lab": Totals()}
    hurried = WorkspaceMetrics(ledger, clock=lambda: NOW_NS, wait=0.05)
    hurried.configure(configuration())
    with ledger.transaction() as transaction:
        transaction.insert([call(0, timestamp_ns=NOW_NS - 1)])
    patient = WorkspaceMetrics(ledger, clock=lambda: NOW_NS, wait=30)
    patient.configure(configuration())
    assert patient.usage() == one_call

    ledger.silent.set()
    before = threading.active_count()
    assert [hurried.usage() for _ in range(3)] == [{}, {}, {}], "what was never counted has no value"
    assert threading.active_count() == before + 1, "one query is enough"
    patient._wait = 0.05
    assert patient.usage() == one_call, "the last count stands in for one that takes long"

    ledger.cut_off.set()
    patient._wait = 30
    assert patient.usage() == {}, "the query failed"
    ledger.silent.clear()
    assert patient.usage() == one_call
    ledger.close()


# -- the configuration


def test_the_configuration_and_the_ledger_say_who_there_is_and_what_is_used(ledger: Ledger) -> None:
    with ledger.transaction() as transaction:
        transaction.insert([call(i, timestamp_ns=NOW_NS - 1) for i in range(41)])
    metrics = metrics_of(ledger, configuration())

    assert named(metrics, "mcp_gateway_token_info") == [
        ({"workspace": "engineering", "token": "alice", "name": "Alice Cursor", "kind": "member"}, 1)
    ]
    assert named(metrics, "mcp_gateway_workspace_info") == [
        ({"workspace": "engineering", "name": "Engineering", "plan": "pro"}, 1),
        ({"workspace": "lab", "name": "lab", "plan": "enterprise"}, 1),
    ]
    assert named(metrics, "mcp_gateway_plan_limit_calls") == [({"workspace": "engineering", "plan": "pro"}, 500_000)]
    assert value(metrics, "mcp_gateway_usage_calls", workspace="engineering") == 41
    december = 1_796_083_200.0  # 2026-12-01T00:00:00Z
    assert value(metrics, "mcp_gateway_usage_period_end_timestamp_seconds", workspace="lab") == december


def test_a_workspace_that_is_removed_during_a_count_has_no_gauge(ledger: Ledger) -> None:
    class Slow(WorkspaceMetrics):
        """Has counted for a configuration that has been replaced."""

        def usage(self) -> Mapping[str, Totals]:
            return {"engineering": Totals(used=41), "gone": Totals(used=7)}

    metrics = Slow(ledger)
    metrics.configure(configuration())

    assert named(metrics, "mcp_gateway_usage_calls") == [({"workspace": "engineering"}, 41)]


@pytest.mark.parametrize(
    ("change", "token", "name"),
    [({"name": "Alice Claude"}, "alice", "Alice Claude"), ({"id": "bob"}, "bob", "Alice Cursor")],
)
def test_a_token_that_is_renamed_or_removed_breaks_no_series_of_calls(
    tmp_path: Path, ledger: Ledger, change: dict[str, str], token: str, name: str
) -> None:
    sink, metrics = sink_at(tmp_path, Clock()), metrics_of(ledger, configuration())
    sink.process(batch(call()))
    before = samples(sink)

    sink.configure(configuration(**change))
    metrics.configure(configuration(**change))

    [(labels, _)] = named(metrics, "mcp_gateway_token_info")
    assert (labels["token"], labels["name"]) == (token, name)
    assert before.items() <= samples(sink).items()
