"""The live stream over real HTTP: what comes, in which order, and from where it goes on."""

import asyncio
import json
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.types import Message

from gateway.analytics.authorization import Authorizer
from gateway.calls import ErrorType
from gateway.journal import Janitor, Writer
from gateway.journal.segments import list_writers
from gateway.ledger import open_ledger
from gateway.observer.live_stream import LiveSettings, LiveStream
from tests.observer.events import until
from tests.observer.live_client import CONFIG, FAILED, PATH, authorization, call, serving


async def test_calls_come_as_they_happen_in_order_and_with_the_apis_shape(root: Path, writer: Writer) -> None:
    writer.append(call(0))
    async with serving(root) as server, server.connect() as client:
        await client.ready()
        writer.append(call(1, **FAILED))
        writer.append(call(2))

        first = await client.event()
        assert await client.calls(1) == ["c2"]

    assert first.event == "call"
    assert first.data["call_id"] == "c1"
    assert first.data["tool_name"] == "create_issue"
    assert first.data["error_type"] == "tool_error"
    assert first.data["error_message"] == "no such repository"
    assert first.data["timestamp"] == "2023-11-14T22:13:21.000Z"


async def test_another_workspaces_calls_never_come(root: Path, writer: Writer) -> None:
    async with serving(root) as server, server.connect("last=10") as client:
        await client.ready()
        writer.append(call(1, workspace_id="sales"))
        writer.append(call(2))

        assert await client.calls(1) == ["c2"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("server=github", ["c0", "c1", "c3"]),
        ("server=github&server=jira", ["c0", "c1", "c2", "c3"]),
        ("tool=search", ["c1", "c2"]),
        ("tool=search&server=jira", ["c2"]),
        ("token=bob", ["c3"]),
        ("status=error", ["c3", "c4"]),
        ("error_type=rate_limited", ["c4"]),
    ],
)
async def test_filters_choose_calls(root: Path, writer: Writer, query: str, expected: list[str]) -> None:
    settings = LiveSettings(poll=0.01, keep_alive=0.02)
    async with serving(root, settings) as server, server.connect(query) as client:
        await client.ready()
        writer.append(call(0))
        writer.append(call(1, tool_name="search"))
        writer.append(call(2, tool_name="search", server_slug="jira"))
        writer.append(call(3, token_id="bob", **FAILED))
        writer.append(call(4, server_slug="x", status="error", error_type=ErrorType.RATE_LIMITED))

        found = []
        while client.place(root) != {writer.writer_id: writer.offset}:
            block = await client.block()
            assert block is not None
            if block.event:
                found.append(block.data["call_id"])

    assert found == expected


async def test_a_members_token_limits_the_stream_to_the_members_calls(root: Path, writer: Writer) -> None:
    async with serving(root) as server, server.connect("last=10", token="bob") as client:
        await client.ready()
        writer.append(call(1))
        writer.append(call(2, token_id="bob"))

        assert await client.calls(1) == ["c2"]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("period=7d", "period"),
        ("nonsense=1", "nonsense"),
        ("status=failed", "status"),
        ("last=1001", "last"),
        ("last=-1", "last"),
        ("last=ten", "last"),
    ],
)
async def test_a_mistake_in_a_parameter_is_400_and_named(
    root: Path, writer: Writer, query: str, parameter: str
) -> None:
    writer.append(call(0))
    async with serving(root) as server:
        response = await server.http.get(f"{PATH}?{query}")

    assert response.status_code == 400
    assert response.json()["parameter"] == parameter


async def test_a_stream_needs_a_token_that_names_the_workspace(root: Path) -> None:
    async with serving(root) as server:
        none = await server.http.get(PATH, headers={"authorization": ""})
        other = await server.http.get(PATH.replace("engineering", "sales"))

    assert (none.status_code, other.status_code) == (401, 403)
    assert server.live.streams == 0


async def test_last_replays_the_newest_that_match_and_goes_on_from_there(root: Path, writer: Writer) -> None:
    for number in range(6):
        writer.append(call(number, token_id="bob" if number % 2 else "alice"))

    async with serving(root) as server, server.connect("last=2&token=bob") as client:
        assert await client.calls(2) == ["c3", "c5"]
        writer.append(call(7, token_id="bob"))
        assert await client.calls(1) == ["c7"]


async def test_last_looks_further_back_when_the_end_of_the_journal_has_too_few(root: Path, writer: Writer) -> None:
    writer.append(call(0, token_id="bob"))
    for number in range(1, 300):
        writer.append(call(number, upstream_response="x" * 4096))

    async with serving(root) as server, server.connect("last=1&token=bob") as client:
        assert await client.calls(1) == ["c0"]


async def test_calls_of_several_relays_come_in_the_order_in_which_they_ended(root: Path, writer: Writer) -> None:
    second = Writer(root, "relay-1")
    for number in range(0, 10, 2):
        writer.append(call(number))
    for number in range(1, 10, 2):
        second.append(call(number))

    async with serving(root) as server, server.connect("last=7") as client:
        assert await client.calls(7) == [f"c{n}" for n in range(3, 10)]
    second.close()


async def test_a_client_that_comes_back_to_a_restarted_observer_misses_nothing_and_gets_nothing_twice(
    root: Path, writer: Writer
) -> None:
    second = Writer(root, "relay-1")
    received: list[str] = []
    last_event_id: str | None = None
    for life in range(4):
        async with serving(root) as server, server.connect("last=100", last_event_id=last_event_id) as client:
            if last_event_id is None:
                await client.ready()
            for number in range(life * 10, life * 10 + 10):
                (writer, second)[number % 2].append(call(number))
            received += await client.calls(5)
            last_event_id = client.last_event_id
    async with serving(root) as server, server.connect(last_event_id=last_event_id) as client:
        received += await client.calls(20)
        writer.append(call(100))
        received += await client.calls(1)

    assert sorted(received) == sorted([f"c{n}" for n in range(40)] + ["c100"])
    second.close()


async def test_a_client_that_leaves_in_the_middle_of_a_replay_goes_on_in_the_middle(root: Path, writer: Writer) -> None:
    second = Writer(root, "relay-1")
    for number in range(10):
        (writer, second)[number % 2].append(call(number))

    async with serving(root) as server:
        async with server.connect("last=6") as client:
            assert await client.calls(2) == ["c4", "c5"]
            left_at = client.last_event_id
        async with server.connect("last=6", last_event_id=left_at) as client:
            assert await client.calls(4) == ["c6", "c7", "c8", "c9"]
            writer.append(call(10))
            assert await client.calls(1) == ["c10"]
    second.close()


async def test_a_client_that_has_seen_no_event_yet_still_goes_on_where_it_was(root: Path, writer: Writer) -> None:
    writer.append(call(0))
    async with serving(root) as server, server.connect() as client:
        await client.ready()
        place = client.last_event_id
    writer.append(call(1))

    async with serving(root) as server, server.connect(last_event_id=place) as client:
        assert await client.calls(1) == ["c1"]


async def test_calls_that_are_gone_from_the_journal_are_a_lag_event(root: Path) -> None:
    writer = Writer(root, "relay-0", segment_bytes=4096)
    async with serving(root) as server:
        async with server.connect() as client:
            await client.ready()
            place = client.last_event_id
        for number in range(40):
            writer.append(call(number))
        Janitor(root, retain_seconds=0).collect({})
        writer.append(call(40))

        async with server.connect(last_event_id=place) as client:
            assert (await client.event())[:2] == ("lag", {"skipped": None})
            found = await client.event()
            while found.data["call_id"] != "c40":
                found = await client.event()
                assert found.event == "call"
    writer.close()


async def test_the_folder_of_a_writer_that_was_read_to_its_end_is_not_missed(root: Path, writer: Writer) -> None:
    ended = Writer(root, "relay-1")
    ended.append(call(0))
    ended.close()
    writer.append(call(1))
    async with serving(root) as server:
        async with server.connect("last=10") as client:
            await client.calls(2)
            await client.ready()
            place = client.last_event_id
        Janitor(root, retain_seconds=0).collect({})
        assert [folder.name for folder in list_writers(root)] == [writer.writer_id]

        async with server.connect(last_event_id=place) as client:
            await client.ready()
            writer.append(call(2))
            assert await client.calls(1) == ["c2"]


@pytest.mark.parametrize("place", ["nonsense!", "e30=e30", "eyJhIjoieCJ9", "e30", "x" * 9000])
async def test_a_place_that_is_none_is_400(root: Path, place: str) -> None:
    async with serving(root) as server:
        response = await server.http.get(PATH, headers={"last-event-id": place})

    assert response.status_code == 400
    assert response.json()["parameter"] == "Last-Event-ID"


async def test_a_quiet_stream_says_that_it_lives_and_where_it_is(root: Path, writer: Writer) -> None:
    settings = LiveSettings(poll=0.01, keep_alive=0.02)
    async with serving(root, settings) as server, server.connect("token=bob") as client:
        await client.ready()
        writer.append(call(1))
        comments = []
        while client.place(root) != {writer.writer_id: writer.offset}:
            block = await client.block()
            assert block is not None
            comments.append(block.comment)

    assert comments == ["keep-alive"] * len(comments)


async def test_an_open_stream_ends_when_the_observer_stops(root: Path, writer: Writer) -> None:
    async with serving(root) as server, server.connect() as client:
        await client.ready()
        writer.append(call(1))
        await client.calls(1)
        server.stop.set()

        assert await client.block() is None


async def test_a_stream_that_is_too_old_ends_and_can_be_taken_up_again(root: Path, writer: Writer) -> None:
    async with serving(root, LiveSettings(poll=0.01, longest=0.05)) as server:
        async with server.connect() as client:
            await client.ready()
            assert await client.block() is None
        writer.append(call(1))
        async with server.connect(last_event_id=client.last_event_id) as client:
            assert await client.calls(1) == ["c1"]


async def test_one_stream_too_many_is_503_until_another_client_has_gone(root: Path) -> None:
    async with serving(root, LiveSettings(poll=0.01, max_streams=1)) as server:
        async with server.connect() as client:
            await client.ready()
            refused = await server.http.get(PATH)
            assert server.live.streams == 1
        await until(lambda: server.live.streams == 0)
        async with server.connect() as client:
            await client.ready()

    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"


async def test_a_client_that_reads_too_slowly_is_told_how_many_calls_it_missed(root: Path, writer: Writer) -> None:
    stop = asyncio.Event()
    settings = LiveSettings(poll=0.01, max_behind=300_000)
    ledger = open_ledger(None, root.parent)
    live = LiveStream(root, Authorizer(lambda: CONFIG), ledger=ledger, stop=stop, settings=settings)
    app = Starlette(routes=live.routes())
    sent: list[bytes] = []
    blocked, go_on = asyncio.Event(), asyncio.Event()

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if b'"c0"' in sent[-1]:
            blocked.set()
            await go_on.wait()

    async def receive() -> Message:
        await stop.wait()
        return {"type": "http.disconnect"}

    token = authorization()["authorization"].encode()
    scope = {
        "type": "http",
        "method": "GET",
        "path": PATH,
        "query_string": b"",
        "headers": [(b"authorization", token)],
    }
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(app(scope, receive, send))
        await until(lambda: any(b"id: " in body for body in sent))
        await until(lambda: live.streams == 1)
        writer.append(call(0))
        await blocked.wait()
        for number in range(1, 1001):
            writer.append(call(number, upstream_response="x" * 1000))
        go_on.set()
        await until(lambda: any(b"event: lag" in body for body in sent))
        writer.append(call(1001))
        await until(lambda: b'"c1001"' in sent[-1] or b'"c1001"' in sent[-2])
        stop.set()
    ledger.close()

    text = b"".join(sent).decode()
    shown = [f'"c{number}"' in text for number in range(1002)]
    skipped = json.loads(text.partition("event: lag\ndata: ")[2].partition("\n")[0])["skipped"]
    assert skipped == shown.count(False) > 0
    assert shown[0]
    assert shown[1001]
