"""The ledger's tables, and how an older ledger becomes today's: forward-only migrations, all in one transaction.

Types are those that DuckDB and PostgreSQL share. Times are integer nanoseconds since the Unix epoch, so that ranges
and cursors are exact. Columns of `calls` have the names of `ToolCall`'s fields; `phase_<name>_ms` are its phases.
"""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from gateway.errors import StartError
from gateway.ledger.driver import Transaction
from gateway.ledger.queries import Query

Dialect = Literal["duckdb", "postgresql"]

_TEXT: Final[Mapping[Dialect, str]] = {"duckdb": "varchar", "postgresql": 'text collate "C"'}
"""Both order texts by their bytes."""
_BY_TIME: Final[Mapping[Dialect, str]] = {"duckdb": "", "postgresql": "partition by range (timestamp_ns)"}


class Statement(NamedTuple):
    """One step of a migration; `varchar` and `{by_time}` in it are replaced by what the database calls them."""

    sql: str
    only: Dialect | None = None

    def of(self, dialect: Dialect) -> str:
        return self.sql.replace("varchar", _TEXT[dialect]).replace("{by_time}", _BY_TIME[dialect])


MIGRATIONS: Final[tuple[tuple[Statement, ...], ...]] = (
    (
        Statement("""
        create table calls (
            call_id varchar not null,
            timestamp_ns bigint not null,
            workspace_id varchar not null,
            token_id varchar not null,
            server_slug varchar not null,
            tool_name varchar not null,
            status varchar not null,
            error_type varchar,
            error_message varchar,
            upstream_response varchar,
            duration_ms double precision not null,
            total_ms double precision not null,
            request_bytes bigint not null,
            response_bytes bigint not null,
            jsonrpc_code bigint,
            http_status bigint,
            transport varchar not null,
            upstream_address varchar,
            protocol_version varchar,
            client_name varchar,
            client_version varchar,
            session_id varchar,
            jsonrpc_id varchar,
            replica varchar not null,
            trace_id varchar not null,
            span_id varchar not null,
            upstream_span_id varchar not null,
            parent_span_id varchar,
            link_trace_id varchar,
            link_span_id varchar,
            trace_flags bigint not null,
            phase_authenticate_ms double precision not null,
            phase_route_ms double precision not null,
            phase_acquire_ms double precision not null,
            phase_send_ms double precision not null,
            phase_wait_ms double precision not null,
            phase_receive_ms double precision not null,
            phase_respond_ms double precision not null
        ) {by_time}
        """),
        Statement("create index calls_by_time on calls (workspace_id, timestamp_ns)", only="postgresql"),
        Statement("""
        create table positions (
            writer varchar primary key,
            next_offset bigint not null,
            as_of_ns bigint not null
        )
        """),
    ),
    (
        Statement("""
        create table deleted_usage (
            workspace_id varchar not null,
            day_ns bigint not null,
            token_id varchar not null,
            calls bigint not null,
            primary key (workspace_id, day_ns, token_id)
        )
        """),
    ),
    (  # the journals of several replicas may share a ledger; '' is the journal beside an embedded one
        Statement("alter table positions rename to positions_of_one_journal"),
        Statement("""
        create table positions (
            journal varchar not null,
            writer varchar not null,
            next_offset bigint not null,
            as_of_ns bigint not null,
            primary key (journal, writer)
        )
        """),
        Statement("insert into positions select '', writer, next_offset, as_of_ns from positions_of_one_journal"),
        Statement("drop table positions_of_one_journal"),
    ),
    (
        Statement("""
        create table seen (
            workspace_id varchar not null,
            token_id varchar not null,
            server_slug varchar not null,
            tool_name varchar not null,
            first_ns bigint not null,
            primary key (workspace_id, token_id, server_slug, tool_name)
        )
        """),
        Statement("""
        insert into seen (workspace_id, token_id, server_slug, tool_name, first_ns)
        select workspace_id, token_id, server_slug, tool_name, min(timestamp_ns) from calls
        group by workspace_id, token_id, server_slug, tool_name
        """),
    ),
)
"""Version n of the schema is what the first n entries make. An entry that was released never changes."""


def migrate(
    transaction: Transaction,
    *,
    now_ns: int,
    dialect: Dialect = "duckdb",
    migrations: tuple[tuple[Statement, ...], ...] = MIGRATIONS,
) -> int:
    """Bring the schema to the newest version, inside `transaction`; return how many migrations that took.

    Raises:
        StartError: a newer Callscope has written the ledger.
    """
    transaction.execute(
        Query("create table if not exists schema_version (version bigint not null, applied_at_ns bigint not null)")
    )
    [(found,)] = transaction.rows(Query("select coalesce(max(version), 0) from schema_version"))
    if found > len(migrations):
        raise StartError(
            f"the ledger has schema version {found}, and this Callscope knows {len(migrations)} at most: "
            "start the newer Callscope that wrote it, or restore a copy of the ledger from before"
        )
    for version, statements in enumerate(migrations[found:], start=found + 1):
        for statement in statements:
            if statement.only in (None, dialect):
                transaction.execute(Query(statement.of(dialect)))
        transaction.execute(
            Query("insert into schema_version values ($version, $now_ns)", {"version": version, "now_ns": now_ns})
        )
    return len(migrations) - int(found)
