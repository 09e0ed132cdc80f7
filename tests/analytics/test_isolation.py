"""Nobody learns of the calls of others: whatever is asked, the answer is what it would be if they had never been.

Every request is sent to two gateways. One knows only the calls and members that its bearer may see, the other also
those of another workspace and of other members, with the same names and ids and with others. Status, headers and body
have to be the same, byte for byte, so that no row, name, count or text can have come through.
"""

import asyncio
import itertools
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from gateway.analytics.authorization import Authorizer
from gateway.analytics.routes import PREFIX, VIEWS
from gateway.analytics.views import encode_cursor
from gateway.calls import COLUMN_OF, ErrorType, ToolCall
from gateway.config import Config
from gateway.journal import Writer
from gateway.journal.reader import Positions
from gateway.ledger.queries import PagePosition
from gateway.ledger.retention import delete_batch
from gateway.observer import live_stream
from gateway.observer.journal_tail import JournalTail
from gateway.observer.live_stream import LiveSettings, LiveStream
from tests.analytics.service import CONFIG, NOW_NS, Service, bearer
from tests.ledger.records import call

DAY = 86_400 * 10**9
NAMES = {
    "server": ["github", "jira", "crm", "hidden", "_unknown"],
    "tool": ["create_issue", "search", "merge", "hidden_tool", "_unknown"],
    "token": ["alice", "bob", "carol", "hidden_token"],
    "status": ["success", "error", "hidden"],
    "error_type": [*map(str, ErrorType), "hidden"],
}
"""What calls have and filters name: configured in one of the workspaces, in both or in none."""
TIMES = st.integers(0, 40).map(lambda age: NOW_NS - 1 - age * DAY // 8) | st.integers(NOW_NS - 10**4, NOW_NS - 1)


@st.composite
def calls(draw: st.DrawFn) -> ToolCall:
    error = draw(st.none() | st.sampled_from(ErrorType))
    number = draw(st.integers(0, 7))
    return call(
        call_id=f"c{number}",  # the same one in several workspaces, and of several members
        timestamp_ns=draw(TIMES),
        workspace_id=draw(st.sampled_from(["engineering", "engineering", "sales", "elsewhere"])),
        token_id=draw(st.sampled_from(NAMES["token"])),
        server_slug=draw(st.sampled_from(NAMES["server"])),
        tool_name=draw(st.sampled_from(NAMES["tool"])),
        status="success" if error is None else "error",
        error_type=error,
        error_message=None if error is None else f"message {number}",
        upstream_response=None if error is None else f"response {number}",
        trace_id=f"{number:032x}",
        duration_ms=draw(st.sampled_from([0.0, 1.5, 20.0, 3000.0])),
    )


BEARERS: list[dict[str, Any]] = [
    *([{"workspaces": ["*"], "token": "alice"}, {"workspaces": ["engineering", "sales"], "token": "bob"}] * 3),
    *([{"workspaces": ["engineering"]}, {"workspaces": ["*"]}] * 2),
    {"workspaces": ["engineering"], "token": "hidden_token"},
    {"workspaces": ["sales"], "token": "carol"},
    {"workspaces": ["engineering"], "token": "nobody"},
    {"workspaces": ["engineering"], "token": ""},
    {"workspaces": []},
]


def mostly(right: Sequence[str], *wrong: str) -> st.SearchStrategy[str]:
    return st.sampled_from([*(list(right) * 4), *wrong])


VALUES: dict[str, st.SearchStrategy[str]] = {
    **{name: mostly(values[:-1], values[-1]) for name, values in NAMES.items()},
    "period": mostly(["today", "month", "1h", "3d", "30d"], "fortnight"),
    "from": mostly(["0", "1794000000", "2026-11-20T00:00:00Z"], "never"),
    "to": mostly(["1795000000", "2026-11-23T12:00:00Z"], "9000000000"),
    "tz": mostly(["UTC", "Europe/Berlin"], "Nowhere"),
    "limit": mostly(["1", "2", "50"], "0"),
    "by": st.lists(st.sampled_from(list(COLUMN_OF)), min_size=1, max_size=3).map(",".join),
    "step": mostly(["1h", "1d", "1w"], "1s"),
    "cursor": st.builds(
        lambda begin, at, number: encode_cursor(begin, NOW_NS, PagePosition(at, f"c{number}")),
        st.just(0) | TIMES,
        TIMES,
        st.integers(0, 8),
    ),
    "format": mostly(["csv", "jsonl", "parquet"], "xlsx"),
    "last": mostly(["1", "3", "1000"], "1001"),
    "nonsense": st.just("1"),
}


class Reader(NamedTuple):
    """Who asks about which workspace."""

    workspace: str
    claims: dict[str, Any]

    def sees(self, record: ToolCall) -> bool:
        """Whether an answer may be of this call."""
        return (
            self._named()
            and record.workspace_id == self.workspace
            and self.claims.get("token") in (None, record.token_id)
        )

    def knows(self) -> Config:
        """The part of the configuration that an answer may be of: the workspace, and of a member nobody else."""
        found = CONFIG.workspaces.get(self.workspace) if self._named() else None
        if found is None:
            return CONFIG.model_copy(update={"workspaces": {}})
        tokens = [token for token in found.tokens if self.claims.get("token") in (None, token.id)]
        return CONFIG.model_copy(update={"workspaces": {self.workspace: found.model_copy(update={"tokens": tokens})}})

    def _named(self) -> bool:
        return self.workspace in self.claims["workspaces"] or "*" in self.claims["workspaces"]


class Asked(NamedTuple):
    """A request."""

    path: str
    parameters: Sequence[tuple[str, str]]


READERS = st.builds(Reader, mostly(["engineering", "engineering", "sales"], "elsewhere"), st.sampled_from(BEARERS))


@st.composite
def requests(draw: st.DrawFn, path: str, parameters: Sequence[str]) -> Asked:
    known = [*parameters, *(["nonsense"] if draw(st.integers(0, 19)) == 0 else [])]
    required = [name for name in ("by", "format") if name in known and path in ("/groups", "/export")]
    names = [*draw(st.lists(st.sampled_from(known), max_size=2) if known else st.just([])), *required]
    return Asked(
        path.replace("{call_id}", f"c{draw(st.integers(0, 7))}"),
        [(name, draw(VALUES[name])) for name in dict.fromkeys(names)],
    )


def parts(response: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    return response.status_code, sorted(response.headers.items()), response.content


READS: dict[str, Sequence[str]] = {
    **{path: view.parameters for path, view in VIEWS.items()},
    "/export": (*VIEWS[""].parameters, "format"),
    "/nothing": ("period",),
}


def test_every_path_is_requested() -> None:
    with Service() as service:
        paths = {getattr(route, "path", "").removeprefix(PREFIX) for route in service.app.routes}
    assert {path.rstrip("/") for path in paths} == {*READS, "/{rest:path}", "/api/openapi.json"} - {"/nothing"}


@pytest.mark.slow
@pytest.mark.usefixtures("both_ledgers")
@given(
    st.lists(calls(), min_size=4, max_size=14),
    READERS,
    st.tuples(*(requests(path, parameters) for path, parameters in READS.items())),
    st.sampled_from([None, None, 30, 2, 0]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_answers_are_the_same_as_if_there_were_nobody_else(
    recorded: list[ToolCall], reader: Reader, asked: tuple[Asked, ...], kept_days: int | None
) -> None:
    """`kept_days` is what retention has left of the calls, whose usage is counted all the same."""

    def answers(of: Iterable[ToolCall], config: Config) -> list[Any]:
        with Service(list(of), config=config, catalog=lambda _: [("github", "merge")]) as service:
            for workspace in CONFIG.workspaces if kept_days is not None else ():
                delete_batch(service.ledger, workspace, NOW_NS - (kept_days or 0) * DAY)
            return [
                parts(service.request(*each, workspace=reader.workspace, bearer=bearer(**reader.claims)))
                for each in asked
            ]

    assert answers(recorded, CONFIG) == answers(filter(reader.sees, recorded), reader.knows())


class _Steps:
    """A clock that goes on by a second whenever it is read: a stream ends after some rounds, not after some time."""

    def __init__(self) -> None:
        self._seconds = itertools.count()

    def __call__(self) -> float:
        return next(self._seconds)


async def _stream(
    recorded: Iterable[ToolCall], config: Config, reader: Reader, asked: Asked, after: Positions | None = None
) -> list[Any]:
    """The whole stream over a journal of these calls, without the ids: those are places in the journal's bytes."""
    calls_ = list(recorded)
    with tempfile.TemporaryDirectory() as folder, Service(calls_) as service:
        root = Path(folder)
        writer = Writer(root, "relay-0")
        for record in calls_:
            writer.append(record)
        place = {} if after is None else {"Last-Event-ID": JournalTail(root, bool, after).cursor}
        stream = LiveStream(
            root,
            Authorizer(lambda: config),
            ledger=service.ledger,
            catalog=lambda _: [("github", "merge")],
            stop=asyncio.Event(),
            settings=LiveSettings(poll=0.001, longest=12.0, keep_alive=1000.0),
            clock=_Steps(),
            wall_clock=lambda: NOW_NS,
        )
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(Starlette(routes=stream.routes())), base_url="http://callscope"
        ) as client:
            response = await client.get(
                live_stream.PATH.format(workspace_id=reader.workspace),
                params=httpx.QueryParams(list(asked.parameters)),
                headers={"Authorization": f"Bearer {bearer(**{'exp': 4 * 10**9, **reader.claims})}", **place},
            )
        writer.close()
    lines = [line for line in response.text.splitlines() if line and not line.startswith("id: ")]
    if response.status_code != httpx.codes.OK:
        return [response.status_code, response.content]
    return [response.status_code, response.headers["content-type"], *lines]


@pytest.mark.slow
@pytest.mark.usefixtures("both_ledgers")
@given(
    st.lists(calls(), min_size=4, max_size=14), READERS, requests("", (*COLUMN_OF, "last")), st.sampled_from([None, {}])
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_live_stream_is_the_same_as_if_there_were_nobody_else(
    recorded: list[ToolCall], reader: Reader, asked: Asked, after: Positions | None
) -> None:
    """`{}` is the place before everything."""
    whole = asyncio.run(_stream(recorded, CONFIG, reader, asked, after))
    alone = asyncio.run(_stream(filter(reader.sees, recorded), reader.knows(), reader, asked, after))
    assert whole == alone


def test_these_tests_would_see_a_difference() -> None:
    """The same requests by a bearer who may see all: there the calls of others do show, in every kind of answer."""
    seen: dict[str, Any] = {"workspaces": ["*"]}
    mine = call(call_id="mine", timestamp_ns=NOW_NS - 1)
    others = call(call_id="other", token_id="bob", server_slug="hidden", timestamp_ns=NOW_NS - 2)
    for path, parameters in [
        *((path, []) for path in ("", "/overview", "/tools", "/members", "/servers", "/usage", "/timeline", "/calls")),
        ("/groups", [("by", "token")]),
        *(("/export", [("format", kind)]) for kind in ("csv", "jsonl", "parquet")),
        ("/calls/other", []),
        ("/tools", [("server", "hidden")]),
    ]:
        answers = []
        for recorded in ([mine], [mine, others]):
            with Service(recorded) as service:
                answers.append(parts(service.request(path, parameters, bearer=bearer(**seen))))
        assert answers[0] != answers[1], path
    reader = Reader("engineering", seen)
    for asked in (Asked("", [("last", "9")]), Asked("", [("server", "hidden")])):
        streams = [asyncio.run(_stream(recorded, CONFIG, reader, asked)) for recorded in ([mine], [mine, others])]
        assert streams[0] != streams[1], asked
