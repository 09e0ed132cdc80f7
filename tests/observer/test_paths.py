"""What the paths of the whole telemetry plane have in common."""

import asyncio
from pathlib import Path

import pytest

from tests.observer.test_observer_app import API, AUTHORIZATION, LIVE, plane, write_config


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    return write_config(tmp_path / "callscope.yaml")


async def test_nobody_is_sent_to_an_address_of_the_requests_own_making(config_path: Path) -> None:
    headers = {**AUTHORIZATION, "host": "evil.example"}
    async with plane(config_path) as http:
        for path in ("/metrics", "/healthz", "/nothing", f"{API}/nothing"):
            answer = await http.get(f"{path}/", headers=headers)
            assert (answer.status_code, "location" in answer.headers) == (404, False), path
        for path in (API, f"{API}/usage", "/api/openapi.json"):
            assert (await http.get(f"{path}/", headers=headers)).status_code == 200, path
        for path in (LIVE, f"{API}/export"):
            answer = await http.head(f"{path}/", headers=headers, params={} if path == LIVE else {"format": "csv"})
            assert answer.status_code == 200, path


async def test_a_name_that_never_was_is_refused_by_the_live_stream_as_by_every_other_path(config_path: Path) -> None:
    async with plane(config_path) as http, asyncio.timeout(10):
        live = await http.get(LIVE, params={"server": "nope"}, headers=AUTHORIZATION)
        overview = await http.get(f"{API}/overview", params={"server": "nope"}, headers=AUTHORIZATION)

    assert (live.status_code, live.json()) == (400, overview.json())
    assert live.json()["allowed"] == ["github"]
