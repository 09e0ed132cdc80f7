"""An upstream over stdio: a process for each token, the server's requests to clients, log messages, changes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from gateway.calls import ErrorType
from gateway.mcp import jsonrpc
from gateway.upstream.base import Client, UpstreamError, UpstreamRequest, UpstreamResponse
from tests.upstream.stdio_rig import ECHO, Start, is_alive, lines, result, script, until

FORM: dict[str, Any] = {"elicitation": {}}

LEGACY = """
def legacy(capabilities={}):
    refuse(read())
    opening = read()
    answer(opening, {"protocolVersion": "2025-11-25", "capabilities": capabilities})
    read()
    return opening["params"]["capabilities"]
"""
"""A server that is initialized, and what it was told of its client."""

TELLS = (
    LEGACY
    + """
note(sys.argv[1], str(os.getpid()))
told = legacy()
while True:
    request = read()
    answer(request, {"told": told, "pid": os.getpid()})
"""
)


class FakeClient:
    """A client that answers what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.heard: list[Any] = []

    async def ask(self, method: str, _params: Raw) -> UpstreamResponse:
        self.asked.append(method)
        return UpstreamResponse(Raw(b'{"action":"accept"}'))

    async def notify(self, data: bytes) -> None:
        self.heard.append(json.loads(data))

    def calls(self, tool: str = "act", *, level: str | None = None, **members: Any) -> UpstreamRequest:
        client = Client(jsonrpc.raw(FORM), self.ask, level)
        return UpstreamRequest("tools/call", {"name": tool}, client=client, notify=self.notify, **members)


def call(token_id: str | None = None, tool: str = "act") -> UpstreamRequest:
    return UpstreamRequest("tools/call", {"name": tool}, token_id=token_id)


# -- isolation


async def test_all_tokens_share_one_process_to_which_no_client_capabilities_are_declared(
    start: Start, tmp_path: Path
) -> None:
    upstream = start(script(TELLS, str(tmp_path / "pids")))
    for request in (FakeClient().calls(token_id="alice"), call("bot"), call()):
        assert result(await upstream.request(request))["told"] == {}

    assert len(lines(tmp_path / "pids")) == 1


async def test_a_process_for_each_token_gets_its_clients_capabilities(start: Start, tmp_path: Path) -> None:
    upstream = start(script(TELLS, str(tmp_path / "pids"), isolation="token"))
    alice = [result(await upstream.request(FakeClient().calls(token_id="alice"))) for _ in range(2)]
    bot = result(await upstream.request(call("bot")))
    own = result(await upstream.request(call()))

    assert [one["told"] for one in (*alice, bot, own)] == [FORM, FORM, {}, {}]
    assert alice[0]["pid"] == alice[1]["pid"]
    assert len({alice[0]["pid"], bot["pid"], own["pid"]}) == 3
    await upstream.close()
    for pid in lines(tmp_path / "pids"):
        assert not is_alive(int(pid))


async def test_a_process_of_one_token_that_dies_leaves_the_others(start: Start) -> None:
    dies = """
        modern()
        while True:
            request = read()
            if request["params"]["name"] == "die":
                sys.exit(1)
            answer(request, os.getpid())
    """
    upstream = start(script(dies, isolation="token"), restart_s=1000.0)
    bot = result(await upstream.request(call("bot")))
    for _ in range(2):
        with pytest.raises(UpstreamError, match="exit status 1"):
            await upstream.request(call("alice", "die"))

    assert result(await upstream.request(call("bot"))) == bot


async def test_the_process_used_least_recently_makes_room(start: Start, tmp_path: Path) -> None:
    upstream = start(script(TELLS, str(tmp_path / "pids"), isolation="token"), max_processes=2)
    pids = {}
    for token_id in ("alice", "bot", "alice", "carl"):
        pids[token_id] = result(await upstream.request(call(token_id)))["pid"]

    await until(lambda: not is_alive(pids["bot"]))
    assert is_alive(pids["alice"])
    assert is_alive(pids["carl"])


async def test_a_busy_process_makes_no_room(start: Start) -> None:
    server = script("modern()\nrequest = read()\nread()\nanswer(request, 'done')\nread()", isolation="token")
    upstream = start(server, max_processes=1)
    slow = asyncio.create_task(upstream.request(call("alice")))
    await until(lambda: upstream.era is not None)
    with pytest.raises(UpstreamError, match="all are busy") as caught:
        await upstream.request(call("bot"))
    assert caught.value.error_type is ErrorType.UPSTREAM_UNREACHABLE
    slow.cancel()
    await asyncio.wait([slow])


async def test_an_idle_process_is_ended_and_started_again(start: Start, tmp_path: Path) -> None:
    upstream = start(script(TELLS, str(tmp_path / "pids"), isolation="token"), idle_s=0.1)
    pid = result(await upstream.request(call("alice")))["pid"]

    await until(lambda: not is_alive(pid))
    assert result(await upstream.request(call("alice")))["pid"] != pid


# -- questions


ASKS = (
    LEGACY
    + """
legacy({"logging": {}})
while True:
    request = read()
    while "method" not in request or request["method"] == "logging/setLevel":
        request = read()
    say(id="q-1", method="elicitation/create", params={"message": "who?"})
    answer(request, read())
"""
)


async def test_a_server_request_goes_to_the_only_client(start: Start) -> None:
    person = FakeClient()
    upstream = start(script(ASKS))

    assert result(await upstream.request(person.calls())) == {
        "jsonrpc": "2.0",
        "id": "q-1",
        "result": {"action": "accept"},
    }
    assert person.asked == ["elicitation/create"]
    assert result(await upstream.request(call()))["error"]["code"] == -32601


async def test_a_server_request_that_may_be_for_either_of_two_clients_is_refused(start: Start) -> None:
    server = script(
        LEGACY
        + """
legacy()
requests = [read(), read()]
say(id="q-1", method="elicitation/create", params={"message": "who?"})
told = read()
for request in requests:
    answer(request, told)
read()
"""
    )
    one, other = FakeClient(), FakeClient()
    upstream = start(server)
    replies = await asyncio.gather(upstream.request(one.calls()), upstream.request(other.calls()))

    assert [result(reply)["error"]["code"] for reply in replies] == [-32601, -32601]
    assert one.asked == other.asked == []


# -- log messages


LOGS = (
    LEGACY
    + """
legacy({"logging": {}})
level = None
while True:
    request = read()
    if request["method"] == "logging/setLevel":
        level = request["params"]["level"]
        answer(request, {})
        continue
    for one in ("debug", "error"):
        say(method="notifications/message", params={"level": one, "data": "said"})
    answer(request, level)
"""
)


async def test_log_messages_reach_the_only_call_from_the_level_on_that_its_client_wants(start: Start) -> None:
    upstream = start(script(LOGS))
    for level, set_to, heard in [
        (None, None, []),
        ("warning", "warning", ["error"]),
        ("debug", "debug", ["debug", "error"]),
        ("error", "debug", ["error"]),
    ]:
        person = FakeClient()
        assert result(await upstream.request(person.calls(level=level))) == set_to
        assert [message["params"]["level"] for message in person.heard] == heard


async def test_a_log_message_that_may_belong_to_either_of_two_calls_is_dropped(start: Start) -> None:
    server = script("""
        modern()
        requests = [read(), read()]
        say(method="notifications/message", params={"level": "error", "data": "said"})
        for request in requests:
            answer(request, 1)
        read()
    """)
    one, other = FakeClient(), FakeClient()
    upstream = start(server)
    await asyncio.gather(upstream.request(one.calls(level="debug")), upstream.request(other.calls(level="debug")))

    assert one.heard == other.heard == []


# -- changes


class ChangeRecorder(list[tuple[str, Any]]):
    """A listener."""

    def __call__(self, method: str, params: Raw) -> None:
        self.append((method.removeprefix("notifications/"), msgspec.json.decode(params)))


LISTENED = """
def change(): say(method="notifications/tools/list_changed", params={})

answer(read(), {"supportedVersions": ["2026-07-28"],
                "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}}})
while True:
    request = read()
    note(sys.argv[1], json.dumps([request["method"], request["params"].get("notifications")]))
    if request["method"] == "subscriptions/listen":
        meta = {"io.modelcontextprotocol/subscriptionId": request["id"]}
        say(method="notifications/subscriptions/acknowledged",
            params={"_meta": meta, "notifications": request["params"]["notifications"]})
    elif request["method"] == "tools/call":
        if request["params"]["name"] == "die":
            sys.exit(0)
        change()
        answer(request, "changed")
"""


def said(path: Path) -> list[Any]:
    return [json.loads(line) for line in lines(path)]


async def test_a_modern_process_that_runs_is_subscribed_to_and_its_changes_reported(
    start: Start, tmp_path: Path
) -> None:
    heard = ChangeRecorder()
    upstream = start(script(LISTENED, str(tmp_path / "log")), reconnect_s=1000.0)
    upstream.listen(heard)
    assert upstream.era is None  # nothing is started for a listener
    await upstream.request(call())

    await until(lambda: heard == [("tools/list_changed", {})])
    await until(lambda: ["subscriptions/listen", {"toolsListChanged": True}] in said(tmp_path / "log"))


async def test_a_subscription_starts_the_process_and_replaces_the_one_before(start: Start, tmp_path: Path) -> None:
    upstream = start(script(LISTENED, str(tmp_path / "log")))
    upstream.listen(ChangeRecorder())
    await upstream.subscribe(frozenset({"a:1"}))
    await upstream.subscribe(frozenset({"a:2"}))

    wanted = [filters for method, filters in said(tmp_path / "log") if method == "subscriptions/listen"]
    assert wanted[-2:] == [
        {"toolsListChanged": True, "resourceSubscriptions": ["a:1"]},
        {"toolsListChanged": True, "resourceSubscriptions": ["a:2"]},
    ]
    await until(lambda: said(tmp_path / "log")[-1][0] == "notifications/cancelled")


async def test_a_process_that_was_started_again_is_subscribed_to_again_and_counts_as_changed(
    start: Start, tmp_path: Path
) -> None:
    heard = ChangeRecorder()
    upstream = start(script(LISTENED, str(tmp_path / "log")), restart_s=0.0)
    upstream.listen(heard)
    await upstream.subscribe(frozenset({"a:1"}))
    with pytest.raises(UpstreamError):
        await upstream.request(call(tool="die"))
    assert heard == []
    await upstream.request(call())

    await until(lambda: ("resources/updated", {"uri": "a:1"}) in heard)
    assert ("tools/list_changed", {}) in heard
    await until(lambda: len([one for one in said(tmp_path / "log") if one[0] == "subscriptions/listen"]) >= 2)


async def test_a_legacy_process_reports_lists_unasked_and_is_subscribed_to_for_resources(start: Start) -> None:
    server = script(
        LEGACY
        + """
legacy({"resources": {"subscribe": True}})
seen = []
while True:
    request = read()
    if request["method"] == "tools/call":
        say(method="notifications/prompts/list_changed")
        say(method="notifications/resources/updated", params={"uri": "a:1"})
        answer(request, seen)
    elif request["params"]["uri"] == "a:0":
        say(id=request["id"], error={"code": -32002, "message": "no such resource"})
    else:
        seen.append([request["method"], request["params"]["uri"]])
        answer(request, {})
"""
    )
    heard = ChangeRecorder()
    upstream = start(server)
    upstream.listen(heard)
    await upstream.subscribe(frozenset({"a:1", "a:2"}))
    await upstream.subscribe(frozenset({"a:1"}))
    refused = await upstream.subscribe(frozenset({"a:1", "a:0"}))
    assert [(uri, "no such resource" in str(why)) for uri, why in refused.items()] == [("a:0", True)]

    assert result(await upstream.request(call())) == [
        ["resources/subscribe", "a:1"],
        ["resources/subscribe", "a:2"],
        ["resources/unsubscribe", "a:2"],
    ]
    assert heard == [("prompts/list_changed", {}), ("resources/updated", {"uri": "a:1"})]


async def test_what_a_process_declares_is_known_when_it_runs(start: Start) -> None:
    upstream = start(script(ECHO))
    assert upstream.declared is None
    await upstream.request(call())

    assert upstream.declared == Raw(b"{}")
