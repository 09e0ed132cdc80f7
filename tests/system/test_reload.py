"""A changed configuration holds at once, in the processes that run; a wrong one changes nothing."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.clients import Outcome, call, post
from tests.system.gateway_process import TIMEOUT_S, TLS, Gateway, eventually, running
from tests.system.signal_counts import from_api

PAUSED = Outcome("alice", "modern", "pause", "success", None)
PROCESSES = ("relay-0", "relay-1", "observer", "supervisor")


@pytest.fixture
def workspace(tmp_path: Path, servers: dict[str, dict[str, Any]]) -> Iterator[Gateway]:
    """Two relays in front of one server."""
    with running(tmp_path, {"modern": servers["modern"]}, {"alice": {}, "bob": {}}, workers=2) as gateway:
        yield gateway


async def test_a_removed_token_is_refused_at_once_and_nobody_else_notices(workspace: Gateway) -> None:
    before = [workspace.pid(name) for name in PROCESSES]
    answered: list[int] = []
    removed = asyncio.Event()

    async def keep_calling() -> None:
        headers = {"Authorization": f"Bearer {workspace.secrets['alice']}", **call("modern__pause")["headers"]}
        async with httpx.AsyncClient(headers=headers, timeout=TIMEOUT_S, verify=TLS) as http:
            while not removed.is_set() or len(answered) < 50:
                response = await http.post(workspace.url, json=call("modern__pause")["json"])
                answered.append(response.status_code)

    def refused_by_all() -> bool:
        """By both relays: each new connection is either's, and twenty of them are not all the same one's."""
        return all(post(workspace, call("modern__echo"), "bob").status_code == 401 for _ in range(20))

    assert post(workspace, call("modern__echo"), "bob").status_code == 200
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(keep_calling())
        workspace.write(without="bob")
        await asyncio.to_thread(eventually, refused_by_all)
        removed.set()

    assert set(answered) == {200}
    assert [workspace.pid(name) for name in PROCESSES] == before
    assert eventually(lambda: from_api(workspace)[PAUSED] == len(answered))


def test_a_configuration_with_a_mistake_is_refused_and_the_one_before_stays(workspace: Gateway) -> None:
    before = [workspace.pid(name) for name in PROCESSES]

    workspace.write(text="workspaces: {engineering: {plan: golden}}")

    eventually(lambda: workspace.log().count("golden") >= 3)  # both relays and the observer say so
    assert post(workspace, call("modern__echo"), "bob").status_code == 200
    assert workspace.ask("/analytics/usage")["tier"] == "enterprise"
    assert [workspace.pid(name) for name in PROCESSES] == before

    workspace.write(without="bob")

    eventually(lambda: post(workspace, call("modern__echo"), "bob").status_code == 401)
    assert post(workspace, call("modern__echo"), "alice").status_code == 200
