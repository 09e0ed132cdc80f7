"""U+0000 in what servers and clients say: it is gone before the journal, so that every signal has the same text."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.ledger.rows import storable
from tests.http1.raw import Behave, answered, error, raw, whole
from tests.http1.raw import modern as modern_server
from tests.relay.rig import rig, tool_call

NUL = "\0"
FAILED: dict[str, Any] = {"content": [{"type": "text", "text": f"disk{NUL}full"}], "isError": True}
CLIENT: dict[str, Any] = {"io.modelcontextprotocol/clientInfo": {"name": f"cur{NUL}sor", "version": f"{NUL}1"}}


@pytest.mark.parametrize(
    "behave",
    [
        pytest.param(lambda r: [answered(r, FAILED)], id="tool error"),
        pytest.param(lambda r: [whole(json.dumps(error(r, -32000, f"disk{NUL}full")).encode())], id="JSON-RPC error"),
        pytest.param(lambda _: [whole(f"disk{NUL}full".encode(), 500)], id="HTTP error"),
    ],
)
async def test_the_record_of_a_failed_call_has_no_nul_and_reaches_the_ledger(tmp_path: Path, behave: Behave) -> None:
    async with raw(modern_server(behave)) as server, rig(tmp_path, {"files": server}) as relay:
        answer = await relay.post(tool_call(**CLIENT))

    assert relay.end.status == "error"
    assert "disk\ufffdfull" in f"{relay.end.error_message} {relay.end.upstream_response}"
    assert (relay.end.client_name, relay.end.client_version) == ("cur\ufffdsor", "\ufffd1")
    assert storable(relay.end) == relay.end
    assert answer.status_code in (200, 500, 502)


async def test_the_client_gets_the_nul_characters_of_the_upstream(tmp_path: Path) -> None:
    async with (
        raw(modern_server(lambda r: [answered(r, FAILED)])) as server,
        rig(tmp_path, {"files": server}) as relay,
    ):
        answer = await relay.post(tool_call(**CLIENT))

    assert answer.json()["result"]["content"] == FAILED["content"]
