import asyncio
import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from starlette.routing import Match

from gateway.analytics.routes import VIEWS
from gateway.errors import LedgerUnavailableError
from gateway.ledger import QueryTimeoutError
from gateway.ledger.duckdb_driver import DuckLedger, DuckSnapshot
from gateway.ledger.queries import Query
from tests.analytics.service import CONFIG, NOW_NS, PATH, Service
from tests.ledger.records import call


def test_an_answer_is_json_that_nobody_stores() -> None:
    with Service() as service:
        response = service.request()
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"


def test_the_whole_answer_has_what_the_contract_names() -> None:
    with Service() as service:
        answer = service.get()
    assert list(answer) == [
        "workspace_id",
        "plan",
        "range",
        "fresh_as_of",
        "overview",
        "tools",
        "members",
        "servers",
        "usage",
    ]
    assert (answer["workspace_id"], answer["plan"]) == ("engineering", "enterprise")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_405_with_those_that_are_allowed(method: str) -> None:
    with Service() as service:
        for path in VIEWS:
            response = service.request(path, method=method)
            assert response.status_code == 405
            assert response.headers["allow"] == "GET, HEAD"
            assert set(response.json()) == {"error"}


def test_a_client_that_takes_no_json_gets_406() -> None:
    with Service() as service:
        response = service.request(headers={"Accept": "text/csv"})
    assert response.status_code == 406
    assert "application/json" in response.json()["error"]


def test_a_path_that_is_not_there_is_404_for_who_may_look_and_401_for_others() -> None:
    with Service() as service:
        for path in ("/nothing", "/calls/a/b", "/exports"):
            response = service.request(path)
            assert response.status_code == 404
            assert set(response.json()) == {"error"}
            assert service.request(path, bearer="x").status_code == 401


def test_a_slash_at_the_end_changes_nothing() -> None:
    with Service([call(timestamp_ns=NOW_NS - 1)]) as service:
        for path in ("", "/tools", "/calls"):
            assert service.get(path + "/") == service.get(path)
        exported = [service.request(f"/export{slash}", {"format": "csv"}) for slash in ("", "/")]
        described = [service.request("", prefix=f"/api/openapi.json{slash}") for slash in ("", "/")]
    for without, with_slash in (exported, described):
        assert (with_slash.status_code, with_slash.text) == (200, without.text)


def test_the_neighbours_of_analytics_are_left_to_others() -> None:
    with Service() as service:
        for path in (PATH.format("engineering").replace("analytics", "logs/stream"), "/metrics", "/"):
            scope = {"type": "http", "path": path, "method": "GET", "headers": []}
            assert all(route.matches(scope)[0] is Match.NONE for route in service.app.routes)


def test_a_ledger_that_is_away_is_503_and_says_when_to_come_again() -> None:
    with Service() as service:
        service.ledger.close()
        for path in ("", "/calls", "/calls/a"):
            response = service.request(path)
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
            assert set(response.json()) == {"error"}


class Away(DuckLedger):
    """A ledger whose questions all fail in one way."""

    error: LedgerUnavailableError | None = None

    @contextlib.contextmanager
    def snapshot(self, *, seconds: float | None = None) -> Iterator[DuckSnapshot]:
        with super().snapshot(seconds=seconds) as snapshot:
            if self.error is not None:
                raise self.error
            yield snapshot


@contextlib.contextmanager
def away(error: LedgerUnavailableError) -> Iterator[Service]:
    with Service() as service, contextlib.closing(Away.open(Path(":memory:"))) as ledger:
        assert isinstance(ledger, Away)
        ledger.error = error
        service.serve(ledger)
        yield service


def test_why_the_ledger_is_away_is_for_the_log_and_not_for_bearers(caplog: pytest.LogCaptureFixture) -> None:
    reason = 'connection to server at "10.1.2.3", port 5432 failed: no password for user "callscope"'
    with away(LedgerUnavailableError(reason)) as service:
        for path, asked in (("", {}), ("/calls/a", {}), ("/export", {"format": "csv"}), ("/tools", {"server": "x"})):
            caplog.clear()
            response = service.request(path, asked)
            assert (response.status_code, response.headers["retry-after"]) == (503, "2")
            assert response.json() == {"error": "the ledger is away: try again later; the observer's log says why"}
            assert reason in caplog.text


def test_a_query_that_takes_too_long_gets_an_error_that_says_so() -> None:
    with away(QueryTimeoutError()) as service:
        response = service.request("/tools")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert response.json()["error"].endswith("was interrupted: ask for a shorter range")


def test_a_mistake_of_ours_is_not_called_an_outage() -> None:
    with Service() as service:
        with service.ledger.transaction() as transaction:
            transaction.execute(Query("drop table calls", {}))
        with pytest.raises(Exception, match="calls"):
            service.request()


async def test_the_event_loop_is_free_during_a_query() -> None:
    loop_went_on = threading.Event()

    def catalog(_: str) -> Iterable[tuple[str, str]]:
        assert loop_went_on.wait(10), "nothing else ran on the event loop meanwhile"
        return ()

    with Service(catalog=catalog) as service:
        asyncio.get_running_loop().call_later(0.01, loop_went_on.set)
        response = await service.send("/tools")
    assert response.status_code == 200


def test_a_changed_configuration_holds_for_the_next_request() -> None:
    with Service() as service:
        assert service.request(workspace="sales").status_code == 200
        service.config = CONFIG.model_copy(update={"workspaces": {}})
        assert service.request(workspace="sales").status_code == 404
