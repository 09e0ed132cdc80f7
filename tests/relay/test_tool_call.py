"""One `tools/call` on its way: what the upstream is sent, what the client gets, and the one record of it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway import __version__
from tests.http1.raw import (
    SSE_END,
    SSE_HEAD,
    TEXT,
    Behave,
    Do,
    Request,
    Steps,
    answered,
    error,
    event,
    eventually,
    raw,
    result,
    tool,
    whole,
)
from tests.http1.raw import (
    legacy as legacy_server,
)
from tests.http1.raw import (
    modern as modern_server,
)
from tests.relay.rig import SECRETS, assert_times_add_up, legacy, legacy_call, rig, tool_call

PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
FURTHER = {**PROGRESS, "params": {"progressToken": 1, "progress": 2}}
TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"
AMBIENT = f"00-{'c' * 32}-{'d' * 16}-00"


async def test_a_call_is_relayed_and_recorded_once_with_everything_that_is_known(tmp_path: Path) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        message = tool_call(arguments={"path": "/"}, id_="my id")
        response = await relay.post(message)

        assert response.status_code == 200
        assert response.json() == {
            "jsonrpc": "2.0",
            "id": "my id",
            "result": {**TEXT, "resultType": "complete"},
        }
    (start,) = relay.starts
    end = relay.end
    for name in start.__struct_fields__:
        assert getattr(start, name) == getattr(end, name), name
    assert (end.status, end.error_type, end.error_message, end.upstream_response) == ("success", None, None, None)
    assert (end.workspace_id, end.token_id, end.server_slug, end.tool_name) == ("team", "alice", "files", "act")
    assert (end.client_name, end.client_version, end.protocol_version) == ("tester", "1.2", "2026-07-28")
    assert (end.transport, end.upstream_address) == ("http", f"127.0.0.1:{server.port}")
    assert (end.jsonrpc_id, end.http_status, end.jsonrpc_code) == ("my id", 200, None)
    assert end.request_bytes == len(json.dumps(message[1]))
    assert end.response_bytes == len(response.content)
    assert_times_add_up(end)
    assert end.phases.wait > 0


async def test_the_record_is_in_the_journal_when_the_answer_comes(tmp_path: Path) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        for number in range(1, 6):
            await relay.post(tool_call())
            assert len(relay.ends) == number


async def test_the_response_has_the_phases_as_server_timing(tmp_path: Path) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        timing = (await relay.post(tool_call())).headers["server-timing"]

        shown = {part.split(";dur=")[0].strip(): float(part.split(";dur=")[1]) for part in timing.split(",")}
    assert shown == {name: pytest.approx(getattr(relay.end.phases, name), abs=0.001) for name in shown}
    assert list(shown) == list(relay.end.phases.__struct_fields__)


async def test_unknown_members_pass_byte_for_byte(tmp_path: Path) -> None:
    arguments = rb'{"b":1.50e+0,"a":[ ],"\u00e9":"\/","n":123456789012345678901234567890,"x":"\ud83d\ude00"}'
    more = rb'"future":{"z" : [1 ,2]},"task":null'
    meta = rb'"example.com/x":{"k":"\u0041"},"progressToken":"p\u0031"'
    odd = (
        rb'{"content" :[], "structuredContent":{"q":0.10}, "future":"\u0042","_meta":{"m":1e2},"resultType":"complete"}'
    )

    def behave(request: Request) -> Steps:
        return [whole(b'{"result":%b,"jsonrpc":"2.0","id":%d,"more":1}' % (odd, request.message["id"]))]

    headers, body = tool_call()
    own = json.dumps(body["params"]["_meta"]).encode()[1:-1]
    params = b'{"name":"files__act","arguments":%b,%b,"_meta":{%b,%b}}'
    content = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":' + params + b"}"
    async with raw(modern_server(behave)) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post((headers, content % (arguments, more, own, meta)))

        sent = server.calls[0]
        for part in (
            b'"arguments":' + arguments,
            *(b'"future":{"z" : [1 ,2]}', b'"task":null'),
            own.replace(b": ", b":")[:40],
        ):
            assert part in sent.body
        assert rb'"example.com/x":{"k":"\u0041"}' in sent.body
        assert rb'"progressToken":"p\u0031"' in sent.body
        assert odd in response.content
        assert sent.message["params"]["name"] == "act"


async def test_the_clients_token_never_reaches_the_upstream(tmp_path: Path) -> None:
    async with (
        raw(modern_server()) as modern,
        raw(legacy_server()) as old,
        rig(
            tmp_path, {"files": modern, "old": {"url": old.url, "headers": {"Authorization": "Bearer its-own"}}}
        ) as relay,
    ):
        for name in ("files__act", "old__act"):
            await relay.post(tool_call(name), cookie="session=1", x_api_key="mine", proxy_authorization="Basic eA==")
            await relay.post(legacy_call(name))

        received = b"".join(r.head + r.body for server in (modern, old) for r in server.requests)
        assert len(modern.calls) == len(old.calls) == 2
        for secret in (*SECRETS.values(), "session=1", "mine", "Basic eA=="):
            assert secret.encode() not in received
        assert {r.headers.get("authorization") for r in modern.requests} == {None}
        assert {r.headers.get("authorization") for r in old.requests} == {"Bearer its-own"}
        assert {r.headers.get("x-api-key") for r in (*modern.requests, *old.requests)} == {None}


# -- the two eras


async def test_a_modern_client_gets_a_modern_result_from_a_legacy_upstream(tmp_path: Path) -> None:
    async with raw(legacy_server()) as server, rig(tmp_path, {"files": server}) as relay:
        answer = (await relay.post(tool_call())).json()

        who = {"name": "callscope", "title": "team", "version": __version__}
        assert answer["result"] == {
            "resultType": "complete",
            **TEXT,
            "_meta": {"io.modelcontextprotocol/serverInfo": who},
        }
        meta = server.calls[0].message["params"]["_meta"]
        assert not [key for key in meta if key.startswith("io.modelcontextprotocol/")]
    assert relay.end.status == "success"


async def test_a_legacy_client_can_call_a_modern_upstream(tmp_path: Path) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        answer = (await relay.post(legacy_call(progressToken=5))).json()

        assert answer["result"]["content"] == TEXT["content"]
        meta = server.calls[0].message["params"]["_meta"]
        assert meta["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"
        assert meta["io.modelcontextprotocol/clientCapabilities"] == {}
        assert meta["progressToken"] == 5
        assert server.calls[0].headers["mcp-name"] == "act"
    assert relay.end.protocol_version == "2025-11-25"


async def test_a_client_of_another_era_gets_the_http_status_of_its_era(tmp_path: Path) -> None:
    behave = modern_server(lambda r: [whole(json.dumps(error(r, -32602, "no such path")).encode(), 400)])
    async with raw(behave) as server, rig(tmp_path, {"files": server}) as relay:
        modern, old = await relay.post(tool_call()), await relay.post(legacy_call())

        assert (modern.status_code, old.status_code) == (400, 200)
        assert modern.json()["error"] == old.json()["error"] == {"code": -32602, "message": "no such path"}


class Upgraded:
    """A legacy server that is replaced by a modern one while its first call is in progress."""

    def __init__(self) -> None:
        self.replaced = False
        self.finish = asyncio.Event()

    def __call__(self, request: Request) -> Steps:
        if not self.replaced:
            return legacy_server(lambda call: [self.finish, answered(call, TEXT)])(request)
        if request.message.get("method") == "initialize":
            return [whole(b"", 400)]
        return modern_server()(request)


async def test_a_result_is_translated_from_the_era_in_which_the_server_sent_it(tmp_path: Path) -> None:
    behave = Upgraded()
    async with raw(behave) as server, rig(tmp_path, {"files": server}) as relay:
        first = asyncio.create_task(relay.post(tool_call()))
        assert await eventually(lambda: len(server.calls) == 1)
        behave.replaced = True
        second = await relay.post(
            tool_call(), token="bot"
        )  # a new session is refused: the relay asks for the era again
        assert "io.modelcontextprotocol/protocolVersion" in server.calls[1].message["params"]["_meta"]
        behave.finish.set()

        for response in (await first, second):
            assert response.json()["result"]["resultType"] == "complete"
            assert response.json()["result"]["content"] == TEXT["content"]


# -- the trace


@pytest.mark.parametrize(
    ("meta", "header", "trace", "parent", "link"),
    [
        pytest.param(None, None, None, None, None, id="none: a new one"),
        pytest.param(TRACEPARENT, None, "a", "b", None, id="in _meta"),
        pytest.param(None, AMBIENT, "c", "d", None, id="in the header"),
        pytest.param(TRACEPARENT, AMBIENT, "a", "b", ("c", "d"), id="in both: the header's is linked"),
        pytest.param(TRACEPARENT, TRACEPARENT, "a", "b", None, id="the same in both"),
        pytest.param("nonsense", AMBIENT, "c", "d", None, id="nonsense in _meta"),
        pytest.param(TRACEPARENT, "nonsense", "a", "b", None, id="nonsense in the header"),
        pytest.param("nonsense", "nonsense", None, None, None, id="nonsense in both"),
        pytest.param(7, None, None, None, None, id="a number in _meta"),
    ],
)
async def test_a_call_joins_the_trace_of_its_client(
    tmp_path: Path, meta: Any, header: str | None, trace: str | None, parent: str | None, link: tuple[str, str] | None
) -> None:
    message = tool_call(**({"traceparent": meta, "tracestate": "v=1", "baggage": "secret=1"} if meta else {}))
    headers = {"traceparent": header} if header else {}
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}) as relay:
        await relay.post(message, **headers, baggage="secret=2")
        sent = server.calls[0]
    end = relay.end
    assert (end.trace_id == trace * 32) if trace else (end.trace_id not in {"a" * 32, "c" * 32})
    assert end.parent_span_id == (parent * 16 if parent else None)
    assert (end.link_trace_id, end.link_span_id) == ((link[0] * 32, link[1] * 16) if link else (None, None))
    flags = "00" if trace == "c" else "01"
    upstream = f"00-{end.trace_id}-{end.upstream_span_id}-{flags}"
    assert sent.headers["traceparent"] == sent.message["params"]["_meta"]["traceparent"] == upstream
    assert len({end.span_id, end.upstream_span_id, end.parent_span_id}) == 3
    assert b"secret=" not in sent.head + sent.body


# -- what may be repeated


@pytest.mark.parametrize(("name", "sent"), [("act", 1), ("read", 2), ("put", 2), ("both", 2), ("odd", 1)])
async def test_only_an_idempotent_call_is_repeated_when_a_kept_connection_closes(
    tmp_path: Path, name: str, sent: int
) -> None:
    tools = [tool("act", destructiveHint=True), tool("read", readOnlyHint=True), tool("put", idempotentHint=True)]
    tools += [
        tool("both", readOnlyHint=True, idempotentHint=True),
        {**tool("odd"), "annotations": {"readOnlyHint": "yes"}},
    ]
    broken = [True]

    def once(request: Request) -> Steps:
        return [Do.CLOSE] if broken and not broken.clear() else [answered(request, TEXT)]  # type: ignore[func-returns-value]

    async with raw(modern_server(once, tools)) as server, rig(tmp_path, {"files": server}) as relay:
        assert len((await relay.post(legacy("tools/list"))).json()["result"]["tools"]) == len(tools)
        await relay.post(tool_call(f"files__{name}"))

        assert len(server.calls) == sent
    assert relay.end.error_type == ("upstream_unreachable" if sent == 1 else None)
    assert len(relay.starts) == 1
    assert_times_add_up(relay.end)


# -- progress


@pytest.mark.parametrize("call", [tool_call, legacy_call], ids=["modern", "legacy"])
async def test_progress_reaches_the_client_before_the_answer_as_an_event_stream(tmp_path: Path, call: Any) -> None:
    def behave(request: Request) -> Steps:
        return [SSE_HEAD, event(PROGRESS), event(FURTHER), event(result(request, TEXT)), SSE_END]

    async with raw(modern_server(behave)) as server, rig(tmp_path, {"files": server}) as relay:
        response = await relay.post(call(progressToken=1))

        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["x-accel-buffering"] == "no"
        messages = _events(response.text)
        assert messages[:2] == [PROGRESS, FURTHER]
        assert (messages[2]["id"], messages[2]["result"]["content"]) == (1, TEXT["content"])
        assert len(messages) == 3
    assert relay.end.status == "success"


@pytest.mark.parametrize(
    ("ending", "error_type"),
    [
        (lambda r: [event(error(r, -32000, "no")), SSE_END], "jsonrpc_error"),
        (lambda _: [SSE_END], "upstream_protocol_error"),
        (lambda _: [Do.CLOSE], "upstream_protocol_error"),
        (lambda _: [Do.HOLD], "upstream_timeout"),
    ],
)
async def test_a_call_that_fails_after_progress_ends_its_stream_with_the_reason(
    tmp_path: Path, ending: Behave, error_type: str
) -> None:
    def behave(request: Request) -> Steps:
        return [SSE_HEAD, event(PROGRESS), *ending(request)]

    timeout = 0.5 if error_type == "upstream_timeout" else 30  # the progress has to come within it
    async with (
        raw(modern_server(behave)) as server,
        rig(tmp_path, {"files": {"url": server.url, "timeout": timeout}}) as relay,
    ):
        messages = _events((await relay.post(tool_call())).text)

        assert [message.get("method") for message in messages] == ["notifications/progress", None]
        assert messages[1]["id"] == 1
        assert "error" in messages[1]
    assert relay.end.error_type == error_type
    assert_times_add_up(relay.end)


def _events(text: str) -> list[Any]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
