"""MCP over a real process's standard streams, under asyncio and under uvloop."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET, Raw

from gateway.calls import ErrorType
from gateway.mcp.revisions import Era
from gateway.upstream.base import UpstreamError, UpstreamRequest
from gateway.upstream.stdio import StdioUpstream
from tests.upstream.stdio_rig import ECHO, Start, lines, result, script, until


def call(tool: str = "read", **members: Any) -> UpstreamRequest:
    return UpstreamRequest("tools/call", {"name": tool}, **members)


async def failure(upstream: StdioUpstream, request: UpstreamRequest | None = None) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await upstream.request(request or call())
    return caught.value


# -- answers


async def test_the_bytes_of_a_result_arrive_as_the_server_wrote_them(start: Start) -> None:
    written = r'{ "b" : 1.0, "a":12345678901234567890, "é":"\u00e9", "a": null , "unknown":[ ]}'
    server = script(
        r"""
        modern()
        request = read()
        write('{"id" :%d,"vendor":{"x":1}, "result": %s ,"jsonrpc":"2.0"}' % (request["id"], sys.argv[1]))
        read()
        """,
        written,
    )
    reply = await start(server).request(call())
    assert reply.is_result
    assert reply.era is Era.MODERN
    assert reply.result is not UNSET
    assert bytes(reply.result) == written.encode()
    assert reply.size == len(written.encode()) + len('{"id" :2,"vendor":{"x":1}, "result":  ,"jsonrpc":"2.0"}')


async def test_the_bytes_of_an_error_arrive_as_the_server_wrote_them(start: Start) -> None:
    written = '{"message" :"no", "code":-32602 ,"data":{"hint":[1]},"more":true}'
    server = script(
        """
        modern()
        write('{"jsonrpc":"2.0","id":%d,"error":%s}' % (read()["id"], sys.argv[1]))
        read()
        """,
        written,
    )
    reply = await start(server).request(call())
    assert not reply.is_result
    assert reply.error is not UNSET
    assert bytes(reply.error) == written.encode()


async def test_answers_out_of_order_reach_their_own_requests(start: Start) -> None:
    server = script("""
        modern()
        requests = [read() for _ in range(5)]
        for request in reversed(requests):
            answer(request, request["params"]["name"])
        read()
    """)
    upstream = start(server)
    replies = await asyncio.gather(*(upstream.request(call(f"tool-{i}")) for i in range(5)))
    assert [result(reply) for reply in replies] == [f"tool-{i}" for i in range(5)]


async def test_a_second_answer_and_answers_to_nothing_are_passed_over(start: Start) -> None:
    server = script("""
        modern()
        for turn in range(2):
            request = read()
            say(id=999999, result="to nothing")
            say(id=str(request["id"]), result="to another id")
            say(id=None, error={"code": -32700, "message": "to nobody"})
            answer(request, turn)
            answer(request, "again")
        read()
    """)
    upstream = start(server)
    assert result(await upstream.request(call())) == 0
    assert result(await upstream.request(call())) == 1


async def test_what_is_no_json_rpc_is_passed_over_and_the_first_of_it_is_warned_of(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    server = script("""
        write("Welcome to the file server!")
        modern()
        request = read()
        write('{"level":"info","id":%d,"result":"a log line"}' % request["id"])
        write('{"jsonrpc":"2.0"}')
        write("[1, 2]")
        write("")
        sys.stdout.buffer.write(bytes([255, 254, 10]))
        answer(request, "the answer")
        read()
    """)
    assert result(await start(server).request(call())) == "the answer"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["server files: line 1 on stdout is not JSON-RPC: b'Welcome to the file server!'"]


async def test_a_line_of_many_megabytes_is_one_answer(start: Start) -> None:
    server = script("""
        modern()
        answer(read(), "x" * (9 * 2**20))
        read()
    """)
    assert len(result(await start(server).request(call()))) == 9 * 2**20


async def test_a_line_over_the_cap_fails_the_calls_and_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setattr("gateway.upstream.subprocess.MAX_LINE_BYTES", 100_000)
    server = script("""
        modern()
        request = read()
        while True:
            sys.stdout.write("x" * 65536)
    """)
    error = await failure(start(server, close_s=0.1))
    assert error.error_type is ErrorType.UPSTREAM_PROTOCOL_ERROR
    assert str(error) == "sent a line of more than 100000 bytes"


async def test_an_answer_without_result_and_error_is_a_protocol_error(start: Start) -> None:
    server = script("""
        modern()
        say(id=read()["id"])
        read()
    """)
    error = await failure(start(server))
    assert error.error_type is ErrorType.UPSTREAM_PROTOCOL_ERROR
    assert str(error) == "answered with neither a result nor an error"


async def test_text_that_is_no_utf8_is_a_protocol_error(start: Start) -> None:
    server = script("""
        modern()
        line = json.dumps({"jsonrpc": "2.0", "id": read()["id"], "result": "?"}) + "\\n"
        sys.stdout.buffer.write(line.encode().replace(b"?", bytes([0xE9])))
        sys.stdout.flush()
        read()
    """)
    error = await failure(start(server))
    assert error.error_type is ErrorType.UPSTREAM_PROTOCOL_ERROR
    assert str(error) == "answered with text that is not UTF-8"


async def test_an_answer_counts_even_if_the_process_ends_right_behind_it(start: Start) -> None:
    server = script("""
        modern()
        answer(read(), "x" * 300_000)
        os._exit(3)
    """)
    assert len(result(await start(server).request(call()))) == 300_000


async def test_the_phases_follow_one_another(start: Start) -> None:
    upstream, request = start(script(ECHO)), call()
    await upstream.request(request)
    assert 0 < request.acquired_ns < request.sent_ns < request.first_byte_ns <= request.done_ns
    assert upstream.address is None


# -- requests


async def test_a_request_written_over_many_lines_is_one_line_to_the_server(start: Start) -> None:
    params = {"name": "read", "arguments": Raw(b'{\r\n  "path":\n  "a\\nb"\r}')}
    reply = await start(script(ECHO)).request(UpstreamRequest("tools/call", params))
    assert result(reply)["params"]["arguments"] == {"path": "a\nb"}


async def test_a_request_larger_than_the_pipe_arrives_whole(start: Start) -> None:
    params = {"name": "read", "arguments": {"text": "y" * 3 * 2**20}}
    reply = await start(script(ECHO)).request(UpstreamRequest("tools/call", params))
    assert len(result(reply)["params"]["arguments"]["text"]) == 3 * 2**20


async def test_a_server_that_does_not_read_holds_requests_back_but_not_their_cancelling(start: Start) -> None:
    server = script("""
        modern()
        signal.pause()
    """)
    upstream = start(server, close_s=0.1)
    large = [UpstreamRequest("tools/call", {"text": "y" * 2**20}) for _ in range(3)]
    tasks = [asyncio.create_task(upstream.request(request)) for request in large]
    await until(lambda: all(request.acquired_ns for request in large))
    for task in tasks:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    assert [request.sent_ns for request in large] == [0, 0, 0]


async def test_a_cancelled_request_is_cancelled_upstream_and_its_late_answer_passed_over(
    start: Start, tmp_path: Path
) -> None:
    arrived = tmp_path / "arrived"
    server = script(
        """
        modern()
        slow = read()
        note(sys.argv[1], "slow")
        cancelled = read()
        answer(slow, "too late")
        answer(read(), {"cancelled": cancelled, "slow": slow["id"]})
        read()
        """,
        str(arrived),
    )
    upstream = start(server)
    slow = asyncio.create_task(upstream.request(call()))
    await until(lambda: lines(arrived))
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    seen = result(await upstream.request(call()))
    assert seen["cancelled"]["method"] == "notifications/cancelled"
    assert seen["cancelled"]["params"]["requestId"] == seen["slow"]
    assert "id" not in seen["cancelled"]


async def test_a_server_that_never_answers_leaves_the_deadline_to_the_caller(start: Start) -> None:
    server = script("""
        modern()
        while True:
            read()
    """)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await start(server).request(call())


async def test_the_context_of_the_client_span_and_unknown_meta_keys_go_upstream(start: Start) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    meta = {"vendor/key": Raw(b'{"x":1}'), "traceparent": Raw(b'"old"'), "baggage": Raw(b'"a=1"')}
    seen = result(await start(script(ECHO)).request(call(meta=meta, traceparent=traceparent, tracestate="a=1")))
    sent = seen["params"]["_meta"]
    assert sent["vendor/key"] == {"x": 1}
    assert (sent["traceparent"], sent["tracestate"]) == (traceparent, "a=1")
    assert "baggage" not in sent
    assert sent["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


# -- progress and the server's own messages

PROGRESS = """
modern()
requests = [read() for _ in range(int(sys.argv[1]))]
for step in (1, 2):
    for request in requests:
        token = request["params"]["_meta"]["progressToken"]
        say(method="notifications/progress", params={"progressToken": token, "progress": step, "vendor": True})
        say(method="notifications/message", params={"level": "info", "data": "to nobody"})
        say(method="notifications/progress", params={"progressToken": 10**30, "progress": step})
        say(method="notifications/progress", params={"progressToken": "1", "progress": step})
for request in requests:
    token = request["params"]["_meta"]["progressToken"]
    answer(request, token)
    say(method="notifications/progress", params={"progressToken": token, "progress": 3})
read()
"""


@pytest.mark.parametrize("token", ["7", '"7"', '"caf\\u00e9"'])
async def test_progress_comes_with_the_clients_own_token_in_order_and_before_the_answer(
    start: Start, token: str
) -> None:
    seen: list[bytes] = []

    async def notify(message: bytes) -> None:
        seen.append(message)

    request = call(meta={"progressToken": Raw(token.encode())}, notify=notify)
    reply = await start(script(PROGRESS, "1")).request(request)
    params = '{"progressToken":%s,"progress":%d,"vendor":true}'
    assert seen == [
        f'{{"jsonrpc":"2.0","method":"notifications/progress","params":{params % (token, step)}}}'.encode()
        for step in (1, 2)
    ]
    assert isinstance(result(reply), int)


async def test_two_clients_with_the_same_token_get_each_their_own_progress(start: Start) -> None:
    upstream = start(script(PROGRESS, "2"))
    seen: dict[str, list[int]] = {"alice": [], "bob": []}

    def request(who: str) -> UpstreamRequest:
        async def notify(message: bytes) -> None:
            seen[who].append(json.loads(message)["params"]["progress"])

        return call(who, meta={"progressToken": Raw(b"1")}, notify=notify)

    replies = await asyncio.gather(upstream.request(request("alice")), upstream.request(request("bob")))
    assert seen == {"alice": [1, 2], "bob": [1, 2]}
    assert result(replies[0]) != result(replies[1])


async def test_a_client_slower_than_the_server_misses_the_oldest_progress_only(start: Start) -> None:
    server = script("""
        modern()
        request = read()
        token = request["params"]["_meta"]["progressToken"]
        for step in range(1000):
            say(method="notifications/progress", params={"progressToken": token, "progress": step})
        answer(request, "done")
        answer(read(), "next")
        read()
    """)
    upstream = start(server)
    go, seen = asyncio.Event(), []

    async def notify(message: bytes) -> None:
        await go.wait()
        seen.append(json.loads(message)["params"]["progress"])

    slow = asyncio.create_task(upstream.request(call(meta={"progressToken": Raw(b"1")}, notify=notify)))
    await asyncio.sleep(0)
    assert result(await upstream.request(call())) == "next"  # a slow client holds up nobody else
    go.set()
    assert result(await slow) == "done"
    assert seen == sorted(seen)
    assert seen[-256:] == list(range(744, 1000))
    assert len(seen) <= 257


async def test_a_ping_of_the_server_is_answered_and_any_other_request_refused(start: Start) -> None:
    server = script("""
        modern()
        request = read()
        say(id="p-1", method="ping")
        say(id=7, method="sampling/createMessage", params={})
        answer(request, [read(), read()])
        read()
    """)
    pong, refusal = result(await start(server).request(call()))
    assert pong == {"jsonrpc": "2.0", "id": "p-1", "result": {}}
    assert refusal["id"] == 7
    assert refusal["error"]["code"] == -32601


# -- the era


async def test_a_server_that_knows_discover_is_modern(start: Start) -> None:
    upstream = start(script(ECHO))
    assert upstream.era is None
    await upstream.request(call())
    assert upstream.era is Era.MODERN


LEGACY = """
def legacy(request):
    assert request["method"] == "initialize", request
    answer(request, {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {"name": "x"}})
    assert read() == {"jsonrpc": "2.0", "method": "notifications/initialized"}
    while True:
        request = read()
        answer(request, request)
"""


@pytest.mark.parametrize(
    "to_discover",
    ["refuse(read())", "answer(read(), {})", 'answer(read(), {"supportedVersions": ["2025-11-25"]})', "read()"],
    ids=["an error", "no versions", "legacy versions only", "silence"],
)
async def test_a_server_that_does_not_know_discover_is_initialized(start: Start, to_discover: str) -> None:
    upstream = start(script(LEGACY + to_discover + "\nlegacy(read())"), probe_s=0.3)
    meta = {"io.modelcontextprotocol/clientCapabilities": Raw(b"{}"), "vendor/key": Raw(b"1")}
    seen = result(await upstream.request(call(meta=meta)))
    assert upstream.era is Era.LEGACY
    assert seen["params"] == {"name": "read", "_meta": {"vendor/key": 1}}


async def test_a_modern_server_that_is_slow_to_start_is_not_taken_for_legacy(start: Start) -> None:
    server = script("""
        discover, initialize = read(), read()
        answer(discover, {"supportedVersions": ["2026-07-28"], "capabilities": {}})
        say(id=initialize["id"], error={"code": -32022, "message": "modern already"})
        answer(read(), "modern")
        read()
    """)
    upstream = start(server, probe_s=0.01)
    assert result(await upstream.request(call())) == "modern"
    assert upstream.era is Era.MODERN


async def test_a_server_that_ends_when_it_is_probed_is_started_again_without_a_probe(
    start: Start, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    server = script(
        LEGACY
        + """
request = read()
note(sys.argv[1], request["method"])
if request["method"] != "initialize":
    sys.exit("ExpectedInitializeRequest")
answer(request, {"protocolVersion": "2025-11-25"})
read()
answer(read(), "first life")
""",
        str(log),
    )
    upstream = start(server, restart_s=0.01)
    assert result(await upstream.request(call())) == "first life"
    assert upstream.era is Era.LEGACY
    assert lines(log) == ["server/discover", "initialize"]
    await _answered(upstream)
    assert lines(log) == ["server/discover", "initialize", "initialize"]


async def _answered(upstream: StdioUpstream) -> Any:
    """The first result after the failures of a pause."""
    for _ in range(500):
        try:
            return result(await upstream.request(call()))
        except UpstreamError:
            await asyncio.sleep(0.01)
    raise AssertionError("the server was not started again")


async def test_a_server_that_refuses_both_handshakes_is_no_mcp_server(start: Start) -> None:
    server = script("""
        while True:
            refuse(read())
    """)
    error = await failure(start(server))
    assert error.error_type is ErrorType.UPSTREAM_PROTOCOL_ERROR
    assert "neither server/discover nor initialize" in str(error)
    assert error.response == b'{"code": -32601, "message": "no such method"}'


async def test_a_handshake_without_an_answer_ends_as_a_timeout(start: Start) -> None:
    server = script("""
        while True:
            read()
    """)
    error = await failure(start(server, probe_s=0.05, process_handshake_s=0.2))
    assert error.error_type is ErrorType.UPSTREAM_TIMEOUT
    assert str(error) == "did not finish its handshake within 0.2 s"
