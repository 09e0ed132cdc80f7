from typing import Any

import pytest

from gateway.analytics.periods import moment_ns
from gateway.calls import ErrorType
from gateway.config import Config, Plan
from gateway.ledger.retention import delete_batch
from tests.analytics.service import CONFIG, Service, bearer
from tests.ledger.records import call

pytestmark = pytest.mark.usefixtures("both_ledgers")


def at(text: str) -> int:
    ns = moment_ns(text)
    assert ns is not None
    return ns


HALF_TIME = at("2026-11-16T00:00:00Z")
"""Half of November has passed."""


def limited(calls_per_month: int | None) -> Config:
    ours = CONFIG.workspaces["engineering"].model_copy(update={"plan": "ours"})
    plan = Plan(calls_per_month=calls_per_month)
    return CONFIG.model_copy(update={"plans": {"ours": plan}, "workspaces": {"engineering": ours}})


def november(*days: int, **fields: Any) -> list[Any]:
    return [call(timestamp_ns=at(f"2026-11-{day:02d}T12:00:00Z") - 1, **fields) for day in days]


def proxy_calls(service: Service, **parameters: str) -> dict[str, Any]:
    answer = service.get("/usage", parameters)
    assert (answer["tier"], answer["period"]) == ("ours", "2026-11")
    assert list(answer["usage"]) == ["mcp_proxy_calls"]
    usage: dict[str, Any] = answer["usage"]["mcp_proxy_calls"]
    return usage


def test_usage_counts_the_calendar_month_and_goes_on_as_it_went() -> None:
    october = [call(timestamp_ns=at("2026-10-31T23:59:59.999Z"))]
    with Service([*october, *november(1, 2, 3, 4, 5)], now_ns=HALF_TIME, config=limited(1000)) as service:
        assert proxy_calls(service) == {
            "used": 5,
            "limit": 1000,
            "remaining": 995,
            "projected": 10,
            "exhausted_on": None,
        }


def test_usage_has_the_day_on_which_the_pace_reaches_the_limit() -> None:
    with Service(november(1, 2, 3, 4, 5, 6), now_ns=HALF_TIME, config=limited(8)) as service:
        usage = proxy_calls(service)
    assert (usage["projected"], usage["exhausted_on"]) == (12, "2026-11-21")


def test_a_pace_that_ends_at_the_limit_does_not_exhaust_it() -> None:
    with Service(november(1, 2, 3, 4), now_ns=HALF_TIME, config=limited(8)) as service:
        usage = proxy_calls(service)
    assert (usage["projected"], usage["exhausted_on"]) == (8, None)


def test_once_it_is_used_up_the_day_is_that_of_the_last_call_within_the_limit() -> None:
    with Service(november(9, 1, 7, 4), now_ns=HALF_TIME, config=limited(3)) as service:
        usage = proxy_calls(service)
    assert (usage["used"], usage["remaining"], usage["exhausted_on"]) == (4, 0, "2026-11-07")


def test_calls_that_retention_has_deleted_are_used_all_the_same() -> None:
    mine, bobs = november(1, 1, 2, 9), november(1, 9, token_id="bob")
    with Service([*mine, *bobs], now_ns=HALF_TIME, config=limited(4)) as service:
        before = proxy_calls(service)
        for_bob = service.get("/usage", bearer=bearer(token="bob"))
        delete_batch(service.ledger, "engineering", at("2026-11-03T00:00:00Z"))

        assert service.get("/overview")["calls"]["month"] == 2
        assert proxy_calls(service) == before
        assert service.get("/usage", bearer=bearer(token="bob")) == for_bob
    assert (before["used"], before["exhausted_on"]) == (6, "2026-11-02")
    assert for_bob["usage"]["mcp_proxy_calls"]["used"] == 2


def test_a_months_first_day_is_projected_as_if_it_were_over() -> None:
    calls = [call(timestamp_ns=at("2026-11-01T00:10:00Z")) for _ in range(30)]
    with Service(calls, now_ns=at("2026-11-01T00:20:00Z"), config=limited(600)) as service:
        early = proxy_calls(service)
    assert (early["projected"], early["exhausted_on"]) == (930, "2026-11-20")
    with Service(calls, now_ns=at("2026-11-02T00:00:00Z"), config=limited(600)) as service:
        late = proxy_calls(service)
    assert (late["projected"], late["exhausted_on"]) == (900, "2026-11-21")


def test_a_limit_of_none_is_null_and_never_reached() -> None:
    with Service(november(1), now_ns=HALF_TIME, config=limited(None)) as service:
        usage = proxy_calls(service)
    assert usage == {"used": 1, "limit": None, "remaining": None, "projected": 2, "exhausted_on": None}


def test_a_limit_of_0_is_exhausted_from_the_first_day() -> None:
    with Service(now_ns=HALF_TIME, config=limited(0)) as service:
        usage = proxy_calls(service)
    assert usage == {"used": 0, "limit": 0, "remaining": 0, "projected": 0, "exhausted_on": "2026-11-01"}


def test_the_first_instant_of_a_month_has_nothing_to_project() -> None:
    with Service(now_ns=at("2026-11-01T00:00:00Z"), config=limited(10)) as service:
        assert proxy_calls(service)["projected"] == 0


@pytest.mark.parametrize("refused", [ErrorType.RATE_LIMITED, ErrorType.QUOTA_EXCEEDED])
def test_what_a_limit_refused_is_not_used(refused: ErrorType) -> None:
    calls = [*november(1), *november(2, 3, status="error", error_type=refused)]
    failed = november(4, status="error", error_type=ErrorType.TOOL_ERROR)
    with Service([*calls, *failed], now_ns=HALF_TIME, config=limited(2)) as service:
        usage = proxy_calls(service)
    assert (usage["used"], usage["exhausted_on"]) == (2, "2026-11-04")


def test_filters_and_zones_change_nothing_about_the_plan() -> None:
    calls = [*november(1), *november(2, token_id="bob")]
    with Service(calls, now_ns=HALF_TIME, config=limited(100)) as service:
        plain = proxy_calls(service)
        assert proxy_calls(service, token="bob", period="1h", tz="Asia/Kolkata") == plain
        assert plain["used"] == 2
