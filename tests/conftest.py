"""Fixtures and marks that several folders share."""

from collections.abc import Iterator

import hypothesis
import pytest

from tests.databases import Cluster, cluster

hypothesis.settings.register_profile("busy machine", deadline=None)  # by default, an example that takes 200 ms fails
hypothesis.settings.load_profile("busy machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark whatever uses PostgreSQL, which `make setup` does not install; put the folders first that take longest."""
    items.sort(key=lambda item: not {"system", "clients", "terminal", "demo"} & set(item.path.parts))
    for item in items:
        if isinstance(item, pytest.Function) and {"postgresql", "own_postgresql"} & set(item.fixturenames):
            item.add_marker(pytest.mark.backend)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    """A PostgreSQL server for the whole session; each test makes a database of its own."""
    with cluster() as started:
        yield started


@pytest.fixture
def own_postgresql() -> Iterator[Cluster]:
    """A PostgreSQL server for one test, which may stop it."""
    with cluster() as started:
        yield started


@pytest.fixture(params=["duckdb", pytest.param("postgresql", marks=pytest.mark.backend)])
def ledger_url(request: pytest.FixtureRequest) -> str | None:
    """`ledger` of a configuration: once that of DuckDB, once that of a new database in PostgreSQL."""
    if request.param == "duckdb":
        return None
    server: Cluster = request.getfixturevalue("postgresql")
    return server.database()
