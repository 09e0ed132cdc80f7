"""What tests of several folders share: databases."""

from collections.abc import Iterator

import pytest

from tests.databases import Cluster, cluster


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL server for the whole session; each test makes a database of its own."""
    with cluster() as started:
        yield started


@pytest.fixture(params=["duckdb", "postgresql"])
def ledger_url(request: pytest.FixtureRequest) -> str | None:
    """`ledger` of a configuration: once that of DuckDB, once that of a new database in PostgreSQL."""
    if request.param == "duckdb":
        return None
    server: Cluster = request.getfixturevalue("postgresql")
    return server.database()
