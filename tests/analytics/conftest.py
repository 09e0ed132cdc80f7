"""What tests of the API's answers share: they hold of both ledgers."""

import pytest

from tests.analytics import service


@pytest.fixture
def both_ledgers(ledger_url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each `Service` of the test begins with an empty ledger: once in DuckDB, once in PostgreSQL."""
    monkeypatch.setattr(service, "LEDGER_URL", ledger_url)
