"""The Usage dashboard says what the analytics API says: the same pace, the same day. Reckoned by Prometheus itself."""

from pathlib import Path

import pytest

from dashboards.promql import Scope
from dashboards.queries import usage
from gateway.analytics.usage import projected, reaches
from gateway.months import month_of
from tests.dashboards.promtool import holds

pytestmark = pytest.mark.backend

DAY_S = 86_400
SCOPE = Scope("workspace")
LABELS = '{job="callscope", workspace="a"}'


def gauges(used: int, limit: int, at_s: int) -> dict[str, str]:
    """What the gateway exports until that moment."""
    values = {
        "mcp_gateway_usage_calls": used,
        "mcp_gateway_plan_limit_calls": limit,
        "mcp_gateway_usage_period_end_timestamp_seconds": month_of(at_s * 10**9).end_ns / 1e9,
    }
    return {
        f'{name}{{job="callscope", workspace="a"}}': f"{value:.0f}x{at_s // 3600}" for name, value in values.items()
    }


@pytest.mark.parametrize(
    ("used", "limit", "day"),
    [
        pytest.param(1000, 2480, 10, id="reached before the month ends"),
        pytest.param(1000, 5000, 10, id="not reached"),
        pytest.param(0, 5000, 10, id="nothing used"),
        pytest.param(100, 200, 0.5, id="the first day counts as a whole one"),
        pytest.param(1000, 1001, 45, id="in February"),
    ],
)
def test_the_forecast_is_that_of_the_api(tmp_path: Path, used: int, limit: int, day: float) -> None:
    at_s = round(day * DAY_S)
    month = month_of(at_s * 10**9)
    moment = reaches(used, limit, month, at_s * 10**9)

    asked = {
        f"round({usage.projected(SCOPE)})": {LABELS: float(projected(used, month, at_s * 10**9))},
        f"round({usage.reached(SCOPE)})": {LABELS: float(usage.NOT_REACHED if moment is None else round(moment / 1e6))},
    }

    holds(tmp_path, gauges(used, limit, at_s), asked, at_s=at_s, interval="1h")


def test_what_is_left_is_spread_over_the_days_that_are_left(tmp_path: Path) -> None:
    at_s = 11 * DAY_S

    asked = {
        usage.remaining(SCOPE): {LABELS: 2000.0},
        usage.calls_a_day_left(SCOPE): {LABELS: 100.0},
        f"round({usage.calls_a_day(SCOPE)})": {LABELS: 91.0},
        f"{usage.share(SCOPE)} * 3": {LABELS: 1.0},
    }

    holds(tmp_path, gauges(1000, 3000, at_s), asked, at_s=at_s, interval="1h")
