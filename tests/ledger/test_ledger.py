import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.calls import ErrorType, Phases, ToolCall
from gateway.errors import LedgerUnavailableError, StartError
from gateway.ledger import Ledger, LedgerSink, QueryTimeoutError, open_ledger
from gateway.ledger.duckdb_driver import DuckLedger
from gateway.ledger.queries import Query, Scope, groups, page
from gateway.ledger.rows import COLUMNS
from gateway.ledger.schema import MIGRATIONS, Dialect, Statement, migrate
from tests.ledger.records import batch, call

EVERYTHING = Scope(workspace_id="engineering", from_ns=0, to_ns=2**63 - 1, filters={})
IN_MEMORY = Path(":memory:")

milliseconds = st.floats(min_value=0, max_value=1e9, allow_nan=False)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
integers = st.integers(min_value=0, max_value=2**62)


@pytest.fixture
def ledger(ledger_url: str | None, tmp_path: Path) -> Iterator[Ledger]:
    opened = open_ledger(ledger_url, tmp_path)
    yield opened
    opened.close()


def count(ledger: Ledger) -> int:
    with ledger.snapshot() as snapshot:
        [(calls,)] = snapshot.rows(Query("select count(*) from calls", {}))
    return int(calls)


@st.composite
def tool_calls(draw: st.DrawFn) -> ToolCall:
    return draw(
        st.builds(
            ToolCall,
            **dict.fromkeys(("call_id", "token_id", "server_slug", "tool_name", "trace_id", "span_id"), texts),
            **{name: st.none() | texts for name in ("parent_span_id", "link_trace_id", "link_span_id", "session_id")},
            **{name: st.none() | texts for name in ("error_message", "upstream_response", "upstream_address")},
            **{name: st.none() | texts for name in ("protocol_version", "client_name", "client_version", "jsonrpc_id")},
            workspace_id=st.just("engineering"),
            upstream_span_id=texts,
            replica=texts,
            timestamp_ns=integers,
            trace_flags=st.integers(0, 255),
            request_bytes=integers,
            response_bytes=integers,
            jsonrpc_code=st.none() | st.integers(-(2**63), 2**63 - 1),
            http_status=st.none() | st.integers(100, 999),
            transport=st.sampled_from(["http", "stdio"]),
            status=st.sampled_from(["success", "error"]),
            error_type=st.none() | st.sampled_from(ErrorType),
            duration_ms=milliseconds,
            total_ms=milliseconds,
            phases=st.builds(Phases, **dict.fromkeys(Phases.__struct_fields__, milliseconds)),
        )
    )


@given(st.lists(tool_calls(), min_size=1, max_size=5, unique_by=lambda c: c.call_id))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_read_back_is_what_was_recorded_in_every_field(ledger: Ledger, calls: list[ToolCall]) -> None:
    with ledger.transaction() as transaction:
        transaction.execute(Query("delete from calls", {}))
        transaction.insert(calls)
    with ledger.snapshot() as snapshot:
        found = snapshot.calls(page(EVERYTHING, after=None, limit=10))
    assert sorted(found, key=lambda c: c.call_id) == sorted(calls, key=lambda c: c.call_id)


def test_an_error_code_that_no_column_can_hold_loses_the_code_and_not_the_call(ledger: Ledger) -> None:
    with ledger.transaction() as transaction:
        transaction.insert([call(call_id="huge", jsonrpc_code=10**30)])
    with ledger.snapshot() as snapshot:
        [found] = snapshot.calls(page(EVERYTHING, after=None, limit=10))
    assert (found.call_id, found.jsonrpc_code) == ("huge", None)


def test_a_character_that_no_column_can_hold_is_replaced_and_the_call_is_there(ledger: Ledger) -> None:
    with ledger.transaction() as transaction:
        transaction.insert([call(error_message="a\0b", tool_name="\0", client_name="\\u0000")])
    with ledger.snapshot() as snapshot:
        [found] = snapshot.calls(page(EVERYTHING, after=None, limit=10))
    assert (found.error_message, found.tool_name, found.client_name) == ("a\ufffdb", "\ufffd", "\\u0000")


def test_texts_are_ordered_by_their_bytes(ledger: Ledger) -> None:
    names = ["a", "B", "_", "Z", "ä", "é", "z"]
    with ledger.transaction() as transaction:
        transaction.insert([call(timestamp_ns=5, call_id=name) for name in names])
    with ledger.snapshot() as snapshot:
        found = snapshot.calls(page(EVERYTHING, after=None, limit=10))
    assert [one.call_id for one in found] == sorted(names, key=str.encode, reverse=True)


def test_a_block_that_raises_leaves_nothing_behind(ledger: Ledger) -> None:
    def fail_midway() -> None:
        with ledger.transaction() as transaction:
            transaction.insert([call()])
            transaction.execute(Query("select * from nowhere", {}))

    with pytest.raises((duckdb.Error, psycopg.Error), match="nowhere"):
        fail_midway()
    assert count(ledger) == 0


def test_a_snapshot_sees_one_state_while_another_thread_writes(ledger: Ledger) -> None:
    def write() -> None:
        with ledger.transaction() as transaction:
            transaction.insert([call(), call()])

    with ledger.snapshot() as snapshot:
        before = snapshot.rows(groups(EVERYTHING, []))[0][0]
        writer = threading.Thread(target=write)
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        assert count(ledger) == 2
        assert snapshot.rows(groups(EVERYTHING, []))[0][0] == before == 0


def test_a_query_that_takes_too_long_is_interrupted_and_the_next_one_is_answered() -> None:
    ledger = DuckLedger.open(IN_MEMORY, query_seconds=0.05)
    endless = Query("select count(*) from range(1000000) a, range(1000000) b where (a.range * b.range) % 7 = 3", {})
    with pytest.raises(QueryTimeoutError, match="shorter range"), ledger.snapshot() as snapshot:
        snapshot.rows(endless)
    assert count(ledger) == 0
    ledger.close()


def test_a_closed_ledger_says_that_it_is_away(ledger: Ledger) -> None:
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerUnavailableError), ledger.snapshot():
        pass


def test_calls_are_still_there_after_closing_and_opening(tmp_path: Path) -> None:
    ledger = DuckLedger.open(tmp_path / "deep" / "ledger.duckdb")
    with ledger.transaction() as transaction:
        transaction.insert([call()])
    ledger.close()
    again = DuckLedger.open(tmp_path / "deep" / "ledger.duckdb")
    assert count(again) == 1
    again.close()


def test_a_second_process_gets_an_error_that_the_file_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "ledger.duckdb"
    ledger = DuckLedger.open(path)
    script = (
        "import sys, pathlib\n"
        "from gateway.errors import StartError\n"
        "from gateway.ledger.duckdb_driver import DuckLedger\n"
        "try: DuckLedger.open(pathlib.Path(sys.argv[1]))\n"
        "except StartError as error: print(error)\n"
    )
    other = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True, timeout=60)
    ledger.close()
    assert str(path) in other.stdout
    assert "one process at a time" in other.stdout


def test_a_file_that_is_no_ledger_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "ledger.duckdb"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StartError, match=r"ledger\.duckdb"):
        DuckLedger.open(path)


def test_migrations_run_once_and_in_order(ledger_url: str | None, tmp_path: Path) -> None:
    open_ledger(ledger_url, tmp_path).close()
    ledger = open_ledger(ledger_url, tmp_path)
    dialect: Dialect = "duckdb" if ledger_url is None else "postgresql"
    later = (*MIGRATIONS, (Statement("alter table calls add column a bigint"),), (Statement("update calls set a = 1"),))
    with ledger.transaction() as transaction:
        transaction.insert([call()])
    with ledger.transaction() as transaction:
        assert migrate(transaction, now_ns=5, dialect=dialect, migrations=later) == 2
    with ledger.transaction() as transaction:
        assert migrate(transaction, now_ns=6, dialect=dialect, migrations=later) == 0
    with ledger.snapshot() as snapshot:
        assert snapshot.rows(Query("select a from calls", {})) == [(1,)]
        versions = snapshot.rows(Query("select version from schema_version order by version", {}))
    ledger.close()
    assert versions == [(n,) for n in range(1, len(later) + 1)]


def test_a_ledger_of_the_first_version_keeps_its_rows_and_its_positions(tmp_path: Path) -> None:
    path = tmp_path / "ledger.duckdb"
    with duckdb.connect(str(path)) as old:
        for statement in MIGRATIONS[0]:
            if statement.only is None:
                old.execute(statement.of("duckdb"))
        old.execute("create table schema_version (version bigint not null, applied_at_ns bigint not null)")
        old.execute("insert into schema_version values (1, 0)")
        old.execute("insert into positions values ('w1', 70, 5)")
        columns = {name: getattr(call(call_id="old"), name) for name in COLUMNS if not name.startswith("phase_")}
        columns |= {name: 0.0 for name in COLUMNS if name.startswith("phase_")}
        holders = ", ".join(f"${name}" for name in columns)
        old.execute(f"insert into calls ({', '.join(columns)}) values ({holders})", columns)  # noqa: S608 - names of columns
    ledger = DuckLedger.open(path)
    sink = LedgerSink(ledger)
    assert sink.committed == {"w1": 70}
    sink.process(batch([call(call_id="new")], start=70))
    assert sink.committed == {"w1": 80}
    assert count(ledger) == 2
    ledger.close()


def test_a_ledger_of_a_newer_callscope_is_refused(ledger_url: str | None, tmp_path: Path) -> None:
    ledger = open_ledger(ledger_url, tmp_path)
    with ledger.transaction() as transaction:
        transaction.execute(Query("insert into schema_version values (99, 0)", {}))
    ledger.close()
    for _ in range(2):
        with pytest.raises(StartError, match="schema version 99"):
            open_ledger(ledger_url, tmp_path)
