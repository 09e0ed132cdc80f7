"""`callscope top`: one frame, or one after the other, whatever becomes of the observer meanwhile."""

import re
import signal
from pathlib import Path

import pytest

from tests.terminal.command_process import CONTROLS, Terminal
from tests.terminal.observer_process import FAILED, Observer, call, run


def frame_of(observer: Observer, *options: str) -> list[str]:
    printed = run("top", "--config", str(observer.config), *options)
    assert (printed.exit_code, printed.stderr) == (0, ""), printed.stderr
    return printed.stdout.splitlines()


def cells(lines: list[str], name: str) -> list[str]:
    """The cells of the first line that begins with this."""
    return next(line.split() for line in lines if line.startswith(name))


def test_where_no_terminal_is_it_prints_one_frame(observer: Observer) -> None:
    lines = frame_of(observer, "--period", "1h")

    assert lines[0].startswith("callscope top   engineering   last 1h   ")
    assert re.fullmatch(
        r"\d\.\d calls/s  10 calls  30\.0% errors  p50 3\d\.\d p95 [\d.,]+ p99 [\d.,]+ ms  1 member", lines[1]
    )
    assert lines[3] == "tool_error 3"
    assert cells(lines, "github__create_issue")[2:] == ["6", "0.0%", "32.5", "34.8"]
    assert cells(lines, "jira__search")[2:] == ["3", "100.0%", "30.0", "30.0"]


def test_the_slowest_and_the_failed_calls_are_there(observer: Observer) -> None:
    lines = frame_of(observer, "--period", "1h")
    slowest = next(i for i, line in enumerate(lines) if "slowest of the last 10 calls" in line)
    failed = next(i for i, line in enumerate(lines) if "failed last" in line)

    assert re.fullmatch(r"\S+  github__index +alice +success +4\.3 s", lines[slowest + 1])
    assert len(lines[slowest + 1 : failed]) == 10
    assert [line.split()[1] for line in lines[failed + 1 :]] == ["jira__search"] * 3
    assert re.search(r'alice +tool_error +no such repo: "acme/ \[31mx", ask +its owner$|its owner', lines[failed + 1])


@pytest.mark.parametrize(
    ("options", "calls", "errors"),
    [
        (["--server", "jira"], "3 calls", "100.0% errors"),
        (["--tool", "index", "--tool", "search"], "4 calls", "75.0% errors"),
        (["--status", "success"], "7 calls", "0.0% errors"),
        (["--status", "success", "--status", "error"], "10 calls", "30.0% errors"),
        (["--error-type", "tool_error", "--token", "alice"], "3 calls", "100.0% errors"),
    ],
)
def test_filters_hold_for_every_part(observer: Observer, options: list[str], calls: str, errors: str) -> None:
    lines = frame_of(observer, "--from", "0", *options)
    failed = next(i for i, line in enumerate(lines) if "failed last" in line)

    assert calls in lines[1]
    assert errors in lines[1]
    assert (len(lines) - failed - 1 > 0) == (errors != "0.0% errors")


def test_in_a_terminal_it_lives_and_ends_quietly_at_ctrl_c(tmp_path: Path) -> None:
    with (
        Observer(tmp_path).holding([call(0)]) as observer,
        Terminal("top", "--config", str(observer.config), "--interval", "0.1") as terminal,
    ):
        terminal.until(r"\b1 call\b")
        observer.write([call(1), call(2, tool_name="delete_issue", **FAILED)])
        frame = terminal.until(r"\b3 calls\b[\s\S]*no such repo")
        terminal.process.send_signal(signal.SIGINT)
        status = terminal.ended()

    assert "github__delete_issue" in frame
    assert max(map(len, frame.splitlines())) <= 80
    assert len(frame.splitlines()) <= 24
    assert status == 130
    assert "Traceback" not in terminal.said
    assert terminal.said.endswith("\x1b[?25h\x1b[?1049l")  # the cursor is there again, and the screen that was before


def test_it_outlives_the_observer_and_says_since_when_it_is_away(tmp_path: Path) -> None:
    with (
        Observer(tmp_path).holding([call(0)]) as observer,
        Terminal("top", "--config", str(observer.config), "--interval", "0.1") as terminal,
    ):
        terminal.until(r"\b1 call\b")
        observer.kill()
        terminal.until(r"(?s)the observer is away since \d\d:\d\d:\d\d \(Connection refused\).+github__create_issue")
        terminal.next_frame()
        observer.write([call(1)])
        observer.start()
        terminal.until(r"\b2 calls\b")

    since = re.findall(r"away since (\S+)", CONTROLS.sub("", terminal.said))
    assert len(since) > 1
    assert len(set(since)) == 1


def test_once_prints_one_frame_in_a_terminal_too(observer: Observer) -> None:
    with Terminal("top", "--config", str(observer.config), "--once", "--period", "1h", lines=30) as terminal:
        assert terminal.ended() == 0

    assert "10 calls" in terminal.frame()
    assert "\x1b[?1049h" not in terminal.said
