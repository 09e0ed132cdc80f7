"""Batches of revision 2025-03-26: each message is served and recorded as if it had come alone."""

from pathlib import Path
from typing import Any

import pytest

from tests.http1.raw import TEXT, raw
from tests.http1.raw import legacy as legacy_server
from tests.relay.rig import JSON, Rig, legacy, legacy_call, rig

OLD = {**JSON, "mcp-protocol-version": "2025-03-26"}


def messages(*pairs: Any) -> list[Any]:
    return [body for _, body in pairs]


async def begin(relay: Rig, revision: str) -> str:
    params = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
    return (await relay.post(legacy("initialize", params))).headers["mcp-session-id"]


@pytest.mark.parametrize("headers", [OLD, JSON], ids=["by its header", "by none"])
async def test_a_batch_gets_one_body_of_responses_and_each_call_has_its_record(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    notification = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    batch = [
        *messages(legacy_call(), legacy("ping", id_="p"), legacy_call("files__nothing")),
        notification,
        {"jsonrpc": "2.0", "id": 9},
        5,
    ]
    batch[0]["id"], batch[2]["id"] = 1, 2
    async with raw(legacy_server()) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post((headers, batch))

        assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
        first, ping, unknown, *bad = response.json()
        assert (first["id"], first["result"]) == (1, TEXT)
        assert (ping["id"], ping["result"]) == ("p", {})
        assert (unknown["id"], unknown["error"]["code"]) == (2, -32602)
        assert [(one["id"], one["error"]["code"]) for one in bad] == [(None, -32600), (None, -32600)]
    assert sorted((call.jsonrpc_id, call.error_type) for call in relay.ends) == [("1", None), ("2", "unknown_tool")]
    assert [one.method for one in relay.operations("server")] == ["ping"]
    assert relay.rejected == {"bad_request": 2}


async def test_a_batch_of_notifications_is_accepted_without_a_body(tmp_path: Path) -> None:
    async with rig(tmp_path) as relay:
        response = await relay.post((OLD, [{"jsonrpc": "2.0", "method": "notifications/initialized"}]))
        assert (response.status_code, response.content) == (202, b"")


async def test_each_message_of_a_batch_counts_for_the_rate_limit(tmp_path: Path) -> None:
    batch = messages(*(legacy("ping", id_=number) for number in range(3)))
    async with rig(tmp_path, workspace={"rate_limit": "2/hour"}) as relay:
        answers = (await relay.post((OLD, batch))).json()
        assert [("result" in one, one["id"]) for one in answers] == [(True, 0), (True, 1), (False, 2)]
        assert answers[2]["error"]["code"] == 429


async def test_the_revision_of_the_session_decides_whether_batches_are_allowed(tmp_path: Path) -> None:
    batch = messages(legacy("ping"))
    async with rig(tmp_path) as relay:
        for revision, status in (("2025-03-26", 200), ("2025-06-18", 400)):
            session = await begin(relay, revision)
            assert (await relay.post((JSON, batch), mcp_session_id=session)).status_code == status
        assert (await relay.post((JSON, batch), mcp_session_id="unknown")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({**JSON, "mcp-protocol-version": "2025-06-18"}, messages(legacy("ping")), id="a later revision"),
        pytest.param({**JSON, "mcp-protocol-version": "2026-07-28"}, messages(legacy("ping")), id="the modern era"),
        pytest.param(OLD, [], id="nothing in it"),
        pytest.param(OLD, messages(legacy("ping"), legacy("initialize")), id="initialize in it"),
        pytest.param(OLD, messages(legacy("ping")) * 257, id="too many in it"),
    ],
)
async def test_an_invalid_batch_is_rejected_as_a_whole(tmp_path: Path, headers: dict[str, str], body: Any) -> None:
    async with rig(tmp_path) as relay:
        response = await relay.post((headers, body))
        assert (response.status_code, response.json()["error"]["code"]) == (400, -32600)
    assert relay.recorded == []
    assert relay.rejected == {"bad_request": 1}
