"""A file that the first version wrote. Its tables are written out here, for the code that made them may change."""

from pathlib import Path

import duckdb

from gateway.ledger import LedgerSink
from gateway.ledger.duckdb_driver import DuckLedger
from gateway.ledger.queries import Query, Scope, page, tools_ever_called
from tests.ledger.records import batch, call

FIRST_VERSION = """
create table schema_version (version bigint not null, applied_at_ns bigint not null);
create table calls (
    call_id varchar not null, timestamp_ns bigint not null, workspace_id varchar not null, token_id varchar not null,
    server_slug varchar not null, tool_name varchar not null, status varchar not null, error_type varchar,
    error_message varchar, upstream_response varchar, duration_ms double precision not null,
    total_ms double precision not null, request_bytes bigint not null, response_bytes bigint not null,
    jsonrpc_code bigint, http_status bigint, transport varchar not null, upstream_address varchar,
    protocol_version varchar, client_name varchar, client_version varchar, session_id varchar, jsonrpc_id varchar,
    replica varchar not null, trace_id varchar not null, span_id varchar not null, upstream_span_id varchar not null,
    parent_span_id varchar, link_trace_id varchar, link_span_id varchar, trace_flags bigint not null,
    phase_authenticate_ms double precision not null, phase_route_ms double precision not null,
    phase_acquire_ms double precision not null, phase_send_ms double precision not null,
    phase_wait_ms double precision not null, phase_receive_ms double precision not null,
    phase_respond_ms double precision not null
);
create table positions (writer varchar primary key, next_offset bigint not null, as_of_ns bigint not null);
insert into schema_version values (1, 1795443000000000000);
insert into positions values ('w1', 70, 1795443000000000000), ('w2', 5, 1795442000000000000);
insert into calls by name select
    'old' as call_id, 1795442999000000000 as timestamp_ns, 'engineering' as workspace_id, 'alice' as token_id,
    'github' as server_slug, 'create_issue' as tool_name, 'error' as status, 'tool_error' as error_type,
    'no such repository' as error_message, 30.25 as duration_ms, 31.5 as total_ms, 12 as request_bytes,
    34 as response_bytes, 'http' as transport, '' as replica, 'a' as trace_id, 'b' as span_id, 'c' as upstream_span_id,
    1 as trace_flags, 0.5 as phase_authenticate_ms, 0 as phase_route_ms, 0 as phase_acquire_ms, 0 as phase_send_ms,
    30.25 as phase_wait_ms, 0 as phase_receive_ms, 0.75 as phase_respond_ms;
"""


def test_its_calls_and_positions_are_todays(tmp_path: Path) -> None:
    path = tmp_path / "ledger.duckdb"
    with duckdb.connect(str(path)) as old:
        old.execute(FIRST_VERSION)

    for _ in range(2):  # what was migrated is opened like any other
        ledger = DuckLedger.open(path)
        assert LedgerSink(ledger).committed == {"w1": 70, "w2": 5}
        assert ledger.fresh_as_of_ns == 1795443000000000000
        with ledger.snapshot() as snapshot:
            everything = Scope(workspace_id="engineering", from_ns=0, to_ns=2**63 - 1, filters={})
            [found] = snapshot.calls(page(everything, after=None, limit=10))
            assert snapshot.rows(tools_ever_called(everything)) == [("github", "create_issue")]
        ledger.close()
        assert (found.call_id, found.error_type, found.error_message) == ("old", "tool_error", "no such repository")
        assert (found.duration_ms, found.phases.wait, found.phases.respond) == (30.25, 30.25, 0.75)

    ledger = DuckLedger.open(path)
    sink = LedgerSink(ledger)
    sink.process(batch([call(call_id="taken before")], start=60, others={"w2": 5}))
    sink.process(batch([call(call_id="new")], start=70, others={"w2": 5}))
    with ledger.snapshot() as snapshot:
        ids = snapshot.rows(Query("select call_id from calls order by call_id", {}))
    ledger.close()
    assert ids == [("new",), ("old",)]
