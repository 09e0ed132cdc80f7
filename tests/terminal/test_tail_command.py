"""`callscope tail`: each call once, in one line, whatever becomes of the observer meanwhile."""

import json
import re
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import httpx
import jwt
import msgspec
import pytest

from gateway.analytics.models import CallSummary
from gateway.terminal.tail_command import file_line, terminal_line
from tests.terminal.command_process import Piped, Terminal
from tests.terminal.observer_process import FAILED, SECRET, WORKSPACES, Observer, call, run
from tests.terminal.scripted_server import Answer, Requested, scripted
from tests.terminal.test_api_client import bearer

CALL = CallSummary.of(
    call(
        0,
        timestamp_ns=1_795_443_000_123_000_000,
        duration_ms=33.46,
        **FAILED | {"error_message": "no such\nrepository"},
    )
)


def event(number: int, kind: str = "call") -> bytes:
    """A block of the stream, as the observer writes it."""
    data = msgspec.json.encode(CallSummary.of(call(number, tool_name=f"tool-{number}", duration_ms=1.0)))
    return f"id: e-{number}\nevent: {kind}\ndata: {data.decode()}\n\n".encode()


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Observer]:
    """An observer that a test may kill."""
    with Observer(tmp_path) as observer:
        yield observer


# -- a line


def test_a_line_of_a_file_has_everything() -> None:
    assert file_line(CALL, UTC) == (
        "2026-11-23T14:10:00.123Z alice            github__create_issue             tool_error      33.5 ms  "
        "no such repository"
    )


def test_a_line_of_a_terminal_is_cut_to_its_width() -> None:
    assert terminal_line(CALL, UTC, 80).plain == (
        "14:10:00 alice      github__create_issue   tool_error    33.5 ms no such reposi…"
    )
    assert {terminal_line(CALL, UTC, width).cell_len <= width for width in range(1, 200)} == {True}


def test_wide_characters_take_their_room() -> None:
    wide = CallSummary.of(call(0, tool_name="日本語" * 20))

    assert terminal_line(wide, UTC, 80).cell_len <= 80


# -- what there is


def test_the_newest_calls_come_first_and_then_those_that_happen(mortal: Observer) -> None:
    mortal.write(call(i, tool_name=f"tool-{i}") for i in range(5))
    with Piped("tail", "--config", str(mortal.config), "--last", "2") as tail:
        before = [tail.line(), tail.line()]
        mortal.write([call(5, tool_name="tool-5", **FAILED)])
        after = tail.line()
        ended = tail.interrupt()

    assert [line.split()[2] for line in before] == ["github__tool-3", "github__tool-4"]
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z alice +github__tool-5 +tool_error +30\.0 ms  no such repo", after
    )
    assert ended == (130, "", "")


def test_as_json_a_call_is_what_the_api_has(observer: Observer) -> None:
    with Piped("tail", "--config", str(observer.config), "--last", "1", "--json") as tail:
        line = tail.line()

    answer = httpx.get(
        f"{observer.url}/api/community/mcp/workspaces/engineering/analytics/calls",
        headers={"Authorization": f"Bearer {bearer('engineering')}"},
    )
    assert json.loads(line) == answer.json()["calls"][0]


@pytest.fixture(scope="module")
def four_calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observer]:
    jira = {"server_slug": "jira"}
    with Observer(tmp_path_factory.mktemp("observer")) as observer:
        observer.write(
            [
                call(0, tool_name="a"),
                call(1, tool_name="b", **FAILED),
                call(2, tool_name="c", **jira),
                call(3, tool_name="d", **jira, **FAILED),
            ]
        )
        yield observer


@pytest.mark.parametrize(
    ("options", "tools"),
    [
        (["--errors"], ["b", "d"]),
        (["--errors", "--status", "success"], ["a", "b", "c", "d"]),
        (["--errors", "--status", "error"], ["b", "d"]),
        (["--tool", "a", "--tool", "b"], ["a", "b"]),
        (["--error-type", "tool_error", "--server", "jira"], ["d"]),
    ],
)
def test_filters_are_the_apis(four_calls: Observer, options: list[str], tools: list[str]) -> None:
    with Piped("tail", "--config", str(four_calls.config), "--last", "9", "--json", *options) as tail:
        assert [json.loads(tail.line())["tool_name"] for _ in tools] == tools
        assert tail.interrupt()[1] == ""


def test_a_mistake_is_told_before_anything_is_printed(observer: Observer) -> None:
    refused = run("tail", "--config", str(observer.config), "--last", "1001")

    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == "--last: '1001' is not a whole number from 0 to 1000 (allowed: 0..1000)\n"


def test_a_server_that_never_was_is_said_at_once_and_not_waited_for(observer: Observer) -> None:
    with Piped("tail", "--config", str(observer.config), "--server", "nope") as tail:
        assert tail.complaint() == "--server: 'nope' is not known here (allowed: github, jira)"
        assert tail.process.wait(timeout=60) == 2


def test_a_bearer_that_is_signed_here_lasts_as_long_as_a_stream_may(tmp_path: Path) -> None:
    requests: list[Requested] = []
    with scripted(Answer(b"retry: 10\n\n" + event(1)), Answer(b"", status=403), requests=requests) as url:
        config = tmp_path / "callscope.yaml"
        config.write_text(json.dumps({"api": {"jwt": {"secret": SECRET}}, "workspaces": WORKSPACES}))
        run("tail", "--config", str(config), "--url", url)
        run("usage", "--config", str(config), "--url", url)

    claims = [jwt.decode(each.bearer, options={"verify_signature": False}) for each in requests]
    assert [claim["exp"] - claim["iat"] for claim in claims] == [3600, 3600, 60]


# -- interruptions


def test_after_a_kill_it_goes_on_where_it_was(mortal: Observer) -> None:
    with Piped("tail", "--config", str(mortal.config), "--last", "1", "--json") as tail:
        mortal.write([call(0)])
        seen = [json.loads(tail.line())["call_id"]]
        for life in range(2):
            mortal.kill()
            mortal.write(call(1 + 10 * life + i) for i in range(5))
            broke = tail.complaint()
            mortal.start()
            mortal.write(call(6 + 10 * life + i) for i in range(5))
            back = tail.complaint()
            seen += [json.loads(tail.line())["call_id"] for _ in range(10)]
            assert re.fullmatch(r"\S+Z the stream broke off: .+: reconnecting …", broke)
            assert re.fullmatch(r"\S+Z the stream is connected again", back)
        status, rest, _ = tail.interrupt()

    assert seen == [f"c{i}" for i in range(21)]
    assert (status, rest) == (130, "")


def test_an_event_that_breaks_off_in_the_middle_is_asked_for_again() -> None:
    requests: list[Requested] = []
    cut = event(2)
    with scripted(
        Answer(b"retry: 10\n\n" + event(1) + cut[: len(cut) - 9], whole=False),
        Answer(event(2) + event(3)),
        Answer(b"", status=403),
        requests=requests,
    ) as url:
        ended = run("tail", "--url", url, "--jwt", bearer("engineering"), "--last", "7")

    assert [line.split()[2] for line in ended.stdout.splitlines()] == [f"github__tool-{i}" for i in (1, 2, 3)]
    assert [request.last_event_id for request in requests] == [None, "e-1", "e-3"]
    assert requests[0].path.endswith("/workspaces/engineering/logs/stream?last=7")
    assert ended.exit_code == 2


def test_a_place_without_an_event_is_where_it_goes_on() -> None:
    requests: list[Requested] = []
    with scripted(
        Answer(b"retry: 10\n\n" + event(1) + b"id: e-9\n\n"), Answer(b"", status=403), requests=requests
    ) as url:
        run("tail", "--url", url, "--jwt", bearer("engineering"))

    assert [request.last_event_id for request in requests] == [None, "e-9"]


def test_calls_that_were_left_out_are_told_on_stderr() -> None:
    blocks = b'event: lag\ndata: {"skipped":1}\n\nevent: lag\ndata: {"skipped":null}\n\n'
    with scripted(Answer(b"retry: 10\n\n" + event(1) + blocks), Answer(b"", status=403)) as url:
        ended = run("tail", "--url", url, "--jwt", bearer("engineering"))

    assert ended.stdout.count("\n") == 1
    assert ended.stderr.splitlines()[:2] == [
        "1 call left out: they came faster than they could be read",
        "calls are missing here: that part of the journal is deleted, or another replica answers now",
    ]


def test_an_observer_that_is_busy_is_asked_again_and_events_that_nobody_knows_are_passed_over() -> None:
    busy = Answer(b'{"error": "100 live streams are open, no more fit"}', status=503)
    with scripted(
        Answer(b"retry: 10\n\n" + event(1)), busy, Answer(event(2, "news") + event(3)), Answer(b"", status=403)
    ) as url:
        ended = run("tail", "--url", url, "--jwt", bearer("engineering"))

    assert [line.split()[2] for line in ended.stdout.splitlines()] == ["github__tool-1", "github__tool-3"]
    assert "the stream broke off: 100 live streams are open, no more fit: reconnecting" in ended.stderr


# -- terminals and pipes


def test_a_terminal_has_colors_and_no_line_is_wider(observer: Observer) -> None:
    with Terminal("tail", "--config", str(observer.config), "--last", "10", columns=70) as terminal:
        terminal.until("github__index")
        lines = terminal.frame().splitlines()
        said = terminal.said
        terminal.process.send_signal(2)
        assert terminal.ended() == 130

    assert max(map(len, lines)) <= 70
    assert "\x1b[32m success" in said
    assert "\x1b[31m tool_error" in said


def test_an_error_message_cannot_command_the_terminal(observer: Observer) -> None:
    with Terminal("tail", "--config", str(observer.config), "--last", "9", "--errors", columns=200) as terminal:
        line = terminal.until("its owner")
        said = terminal.said

    assert 'no such repo: "acme/ [31mx", ask its owner' in line
    assert "\x1b[31mx" not in said


def test_when_nobody_reads_any_more_it_ends_quietly(mortal: Observer) -> None:
    with Piped("tail", "--config", str(mortal.config), "--last", "1") as tail:
        mortal.write([call(0)])
        tail.line()
        assert tail.process.stdout is not None
        tail.process.stdout.close()
        mortal.write([call(1)])

        assert tail.process.wait(timeout=60) == 141
        assert tail.process.stderr is not None
        assert tail.process.stderr.read() == ""
