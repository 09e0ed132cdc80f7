"""Plans that are enforced: a relay with a real journal, and the observer's snapshots as files."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.calls import Heartbeat, ToolCall
from gateway.config import Plan, UsageLimits
from gateway.journal import Reader, Writer
from gateway.months import month_of
from gateway.quota_snapshot import QuotaSnapshot, snapshot_path, write_snapshot
from gateway.relay.quota import QuotaEnforcement
from gateway.relay.relay_app import Tuning
from tests.http1.raw import modern as modern_server
from tests.http1.raw import raw
from tests.relay.rig import JSON, Rig, configuration, legacy, legacy_call, rig, tool_call

MIRRORED = {
    "name": "act",
    "inputSchema": {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
}


def snapshot(folder: Path, used: int, *, age_s: float = 0, positions: Mapping[str, int] | None = None) -> None:
    """Write what the observer would."""
    now_ns = time.time_ns()
    write_snapshot(
        snapshot_path(folder),
        QuotaSnapshot(
            written_ns=now_ns - int(age_s * 1e9),
            month_start_ns=month_of(now_ns).start_ns,
            used={"team": used},
            positions=dict(positions or {}),
        ),
    )


def limited(folder: Path, limit: int | None, fail: str = "open", **workspace: Any) -> dict[str, Any]:
    """The settings of a relay that enforces this limit."""
    return {
        "data_dir": str(folder),
        "usage": {"enforce": True, "fail": fail},
        "plans": {"ours": {"calls_per_month": limit}},
        "workspace": {"plan": "ours", **workspace},
    }


def enforced(relay: Rig, limit: int | None, fail: str = "open") -> None:
    """Take a configuration with another limit."""
    plans = {"ours": Plan(calls_per_month=limit)}
    usage = UsageLimits.model_validate({"enforce": True, "fail": fail})
    relay.relay.apply(relay.config.model_copy(update={"plans": plans, "usage": usage}))


def outcomes(relay: Rig) -> Counter[str | None]:
    return Counter(end.error_type for end in relay.ends)


async def read_snapshot(relay: Rig) -> None:
    """Let the relay read the snapshot now, not half a second later."""
    await relay.relay._quota_enforcement.poll()


async def statuses(relay: Rig, calls: int) -> list[int]:
    """Of calls one after the other."""
    return [(await relay.post(tool_call())).status_code for _ in range(calls)]


async def test_a_call_over_the_plans_limit_is_refused_with_what_to_do_and_recorded(tmp_path: Path) -> None:
    snapshot(tmp_path, used=1)
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **limited(tmp_path, 3)) as relay:
        responses = [await relay.post(tool_call(id_=number)) for number in range(4)]

        assert [response.status_code for response in responses] == [200, 200, 429, 429]
        refused = responses[3].json()
        assert (refused["id"], refused["error"]["code"]) == (3, 429)
        assert "the plan 'ours' allows 3 calls a month" in refused["error"]["message"]
        data = refused["error"]["data"]
        assert (data["error_type"], data["plan"], data["limit"], data["used"]) == ("quota_exceeded", "ours", 3, 3)
        until_the_end_s = (month_of(time.time_ns()).end_ns - time.time_ns()) / 1e9
        assert abs(int(responses[3].headers["retry-after"]) - until_the_end_s) < 60
        assert len(server.calls) == 2
    assert outcomes(relay) == {None: 2, "quota_exceeded": 2}
    refusals = [end for end in relay.ends if end.error_type == "quota_exceeded"]
    assert {(end.server_slug, end.tool_name, end.duration_ms) for end in refusals} == {("files", "act", 0.0)}
    assert len(relay.starts) == 2


async def test_a_burst_is_served_up_to_the_limit_exactly(tmp_path: Path) -> None:
    snapshot(tmp_path, used=0)
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **limited(tmp_path, 20)) as relay:
        responses = await asyncio.gather(*(relay.post(tool_call(id_=number)) for number in range(50)))

        assert Counter(response.status_code for response in responses) == {200: 20, 429: 30}
        assert len(server.calls) == 20
    assert outcomes(relay) == {None: 20, "quota_exceeded": 30}


async def test_each_call_of_a_batch_is_held_to_the_limit_and_told_in_its_place(tmp_path: Path) -> None:
    snapshot(tmp_path, used=0)
    batch = [legacy_call()[1] | {"id": number} for number in range(4)]
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **limited(tmp_path, 3)) as relay:
        answers = (await relay.post(({**JSON, "mcp-protocol-version": "2025-03-26"}, batch))).json()

        assert [one["id"] for one in answers] == [0, 1, 2, 3]
        assert ["result" in one for one in answers].count(True) == 3
        [refused] = [one["error"] for one in answers if "error" in one]
        assert (refused["code"], refused["data"]["error_type"]) == (429, "quota_exceeded")


async def test_what_fails_uses_the_plan_up_and_what_a_rate_limit_refuses_does_not(tmp_path: Path) -> None:
    snapshot(tmp_path, used=0)
    settings = limited(tmp_path, 2, rate_limit="3/hour")
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **settings) as relay:
        await relay.post(tool_call("files__nothing"))
        assert await statuses(relay, 3) == [200, 429, 429]
        assert (await relay.post(tool_call(), token="bot")).status_code == 429
    assert outcomes(relay) == {"unknown_tool": 1, None: 1, "quota_exceeded": 2, "rate_limited": 1}


async def test_a_bad_request_that_is_no_call_uses_nothing(tmp_path: Path) -> None:
    snapshot(tmp_path, used=0)
    server_of = modern_server(None, [MIRRORED])
    async with raw(server_of) as server, rig(tmp_path, {"files": server}, **limited(tmp_path, 1)) as relay:
        odd = tool_call(arguments={"region": "eu"})
        assert (await relay.post(odd, mcp_param_region="us")).status_code == 400
        assert (await relay.post(odd, mcp_param_region="eu")).status_code == 200
        assert (await relay.post(odd, mcp_param_region="eu")).status_code == 429


async def test_other_requests_are_not_held_to_it(tmp_path: Path) -> None:
    snapshot(tmp_path, used=5)
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **limited(tmp_path, 5)) as relay:
        listed = await relay.post(legacy("tools/list"))
        assert "files__act" in [one["name"] for one in listed.json()["result"]["tools"]]


async def test_without_enforcement_no_call_is_refused(tmp_path: Path) -> None:
    snapshot(tmp_path, used=5)
    settings = {**limited(tmp_path, 5), "usage": {"enforce": False}}
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **settings) as relay:
        assert await statuses(relay, 2) == [200, 200]


async def test_a_larger_plan_holds_for_the_next_call_and_so_does_a_smaller_one(tmp_path: Path) -> None:
    snapshot(tmp_path, used=0)
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **limited(tmp_path, 1)) as relay:
        assert await statuses(relay, 2) == [200, 429]
        enforced(relay, 3)
        assert await statuses(relay, 3) == [200, 200, 429]
        enforced(relay, None)
        assert await statuses(relay, 2) == [200, 200]
        enforced(relay, 3)
        assert await statuses(relay, 1) == [429]


async def test_snapshots_are_taken_over_while_the_relay_runs_and_no_call_is_counted_twice(tmp_path: Path) -> None:
    snapshot(tmp_path, used=0)
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **limited(tmp_path, 4)) as relay:
        assert await statuses(relay, 3) == [200, 200, 200]
        batch = Reader(relay.journal, ToolCall).read({})
        second = batch.entries[1]
        snapshot(tmp_path, used=2, positions={second.writer: second.offset})
        await read_snapshot(relay)
        assert await statuses(relay, 2) == [200, 429]
        snapshot(tmp_path, used=4, positions=batch.positions | {second.writer: 2**40})
        await read_snapshot(relay)
        assert await statuses(relay, 1) == [429]


async def test_open_lets_calls_through_while_nothing_is_known_and_tells_of_it(tmp_path: Path) -> None:
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **limited(tmp_path, 1)) as relay:
        assert await statuses(relay, 3) == [200, 200, 200]
        snapshot(tmp_path, used=0)
        await read_snapshot(relay)
        assert await statuses(relay, 1) == [429]
    beats = [event for event in relay.events() if isinstance(event, Heartbeat) and event.usage_unknown]
    assert [beat.usage_unknown for beat in beats] == [{"team": {"allowed": 3}}]


async def test_closed_refuses_calls_while_nothing_is_known_and_tells_of_it(tmp_path: Path) -> None:
    settings = {**limited(tmp_path, 5, "closed"), "tuning": Tuning(first_snapshot_wait_s=0)}
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **settings) as relay:
        refused = await relay.post(tool_call())
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
        assert "it is not known how much" in refused.json()["error"]["message"]
        snapshot(tmp_path, used=0)
        await read_snapshot(relay)
        assert await statuses(relay, 1) == [200]
    assert outcomes(relay) == {"quota_exceeded": 1, None: 1}
    beats = [event for event in relay.events() if isinstance(event, Heartbeat) and event.usage_unknown]
    assert [beat.usage_unknown for beat in beats] == [{"team": {"refused": 1}}]


async def test_a_relay_that_would_refuse_waits_for_the_first_snapshot_before_it_serves(tmp_path: Path) -> None:
    config = configuration({}, **limited(tmp_path, 5, "closed"))
    with contextlib.closing(Writer(tmp_path / "journal", "relay")) as journal:
        enforcement = QuotaEnforcement(tmp_path, journal, lambda *_: None, poll_s=0.01, first_wait_s=60)
        quota = enforcement.quota_of(config)
        assert quota is not None
        preparing = asyncio.create_task(enforcement.prepare())
        done, _ = await asyncio.wait([preparing], timeout=0.1)
        assert not done
        snapshot(tmp_path, used=4)
        await preparing
        assert quota.admit("team", time.time_ns()) is None
        assert quota.admit("team", time.time_ns()) is not None


async def test_a_snapshot_that_was_read_while_enforcement_was_switched_off_and_on_is_read_again(tmp_path: Path) -> None:
    on = configuration({}, **limited(tmp_path, 5))
    off = configuration({}, **{**limited(tmp_path, 5), "usage": {"enforce": False}})
    snapshot(tmp_path, used=5)
    with contextlib.closing(Writer(tmp_path / "journal", "relay")) as journal:
        enforcement = QuotaEnforcement(tmp_path, journal, lambda *_: None)
        enforcement.quota_of(on)
        polling = asyncio.create_task(enforcement.poll())
        await asyncio.sleep(0)  # the file is being read
        enforcement.quota_of(off)
        quota = enforcement.quota_of(on)
        assert quota is not None
        await polling
        await enforcement.poll()
        assert quota.admit("team", time.time_ns()) is not None


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"used":{}}', b'{"used":{"\xff":1}}'])
async def test_a_damaged_snapshot_is_none(tmp_path: Path, damage: bytes) -> None:
    path = snapshot_path(tmp_path)
    path.parent.mkdir()
    path.write_bytes(damage)
    settings = {**limited(tmp_path, 5, "closed"), "tuning": Tuning(first_snapshot_wait_s=0)}
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **settings) as relay:
        assert await statuses(relay, 1) == [429]


async def test_enforcement_that_is_switched_on_counts_from_then_on_and_from_the_ledger(tmp_path: Path) -> None:
    settings = {**limited(tmp_path, 5, "closed"), "usage": {"enforce": False}}
    async with raw(modern_server()) as server, rig(tmp_path, {"files": server}, **settings) as relay:
        assert await statuses(relay, 3) == [200, 200, 200]
        enforced(relay, 5, "closed")
        assert await statuses(relay, 1) == [200], "the observer has not written its first snapshot yet"
        third = Reader(relay.journal, ToolCall).read({}).entries[2]
        snapshot(tmp_path, used=3, positions={third.writer: third.offset})
        await read_snapshot(relay)
        assert await statuses(relay, 3) == [200, 429, 429]


async def test_a_new_relay_goes_by_the_last_snapshot_however_old_until_there_is_a_newer_one(tmp_path: Path) -> None:
    snapshot(tmp_path, used=0)
    async with raw(modern_server()) as server:
        async with rig(tmp_path, {"files": server}, **limited(tmp_path, 5)) as relay:
            await statuses(relay, 3)
        second = Reader(relay.journal, ToolCall).read({}).entries[1]
        snapshot(tmp_path, used=2, positions={second.writer: second.offset}, age_s=3600)

        async with rig(tmp_path, {"files": server}, **limited(tmp_path, 5, "closed")) as relay:
            assert await statuses(relay, 2) == [200, 200]
            snapshot(tmp_path, used=3)
            await read_snapshot(relay)
            assert await statuses(relay, 1) == [429], "the third call of the relay before counts now"
