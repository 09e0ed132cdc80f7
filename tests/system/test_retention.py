"""A plan's retention holds in the running gateway: what is too old goes, and is used all the same."""

import time
from pathlib import Path
from typing import Any

import duckdb

from gateway.journal import Writer
from gateway.months import DAY_NS, month_of
from tests.ledger.records import call
from tests.system.clients import call as tool_call
from tests.system.clients import post
from tests.system.gateway_process import WORKSPACE, eventually, running
from tests.system.plans import change, metric, used
from tests.system.signal_counts import from_metrics

DELETED = "mcp_gateway_ledger_rows_deleted_total"


def keeping(days: int | None) -> dict[str, Any]:
    return {"plans": {"enterprise": {"retention_days": days, "calls_per_month": 1000}}}


def test_a_changed_plan_deletes_at_once_what_it_does_not_keep(
    tmp_path: Path, servers: dict[str, dict[str, Any]]
) -> None:
    with running(tmp_path, {"modern": servers["modern"]}, {"alice": {}}, settings=keeping(None)) as gateway:
        now = time.time_ns()
        old = [
            call(call_id=f"{days}-{i}", workspace_id=WORKSPACE, timestamp_ns=now - days * DAY_NS - i)
            for days in (1, 8, 40)
            for i in range(10)
        ]
        writer = Writer(gateway.data / "journal", "relay-9")
        for record in old:
            writer.append(record)
        writer.close()
        assert post(gateway, tool_call("modern__echo"), "alice").status_code == 200
        month = month_of(now)
        of_this_month = 1 + sum(month.start_ns <= record.timestamp_ns for record in old)
        assert eventually(lambda: used(gateway) == of_this_month)
        eventually(lambda: from_metrics(gateway).total() == 31)
        assert metric(gateway, DELETED, workspace=WORKSPACE) == 0

        change(gateway, **keeping(30))
        assert eventually(lambda: metric(gateway, DELETED, workspace=WORKSPACE) == 10)
        change(gateway, **keeping(7))
        assert eventually(lambda: metric(gateway, DELETED, workspace=WORKSPACE) == 20)
        assert used(gateway) == of_this_month
        assert metric(gateway, "mcp_gateway_usage_calls", workspace=WORKSPACE) == of_this_month
        assert post(gateway, tool_call("modern__echo"), "alice").status_code == 200
        assert eventually(lambda: used(gateway) == of_this_month + 1)
        assert from_metrics(gateway).total() == 32, "counters are not the ledger"
        assert gateway.stop() == 0
        with duckdb.connect(str(gateway.data / "ledger.duckdb"), read_only=True) as ledger:
            kept = [call_id for (call_id,) in ledger.execute("select call_id from calls").fetchall()]
    assert sorted(call_id for call_id in kept if call_id.startswith(("1-", "8-", "40-"))) == [
        f"1-{i}" for i in range(10)
    ]
    assert len(kept) == 12
