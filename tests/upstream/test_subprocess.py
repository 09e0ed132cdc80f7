"""The process behind a stdio upstream: how it is started, how it ends, and what is left of it."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.calls import ErrorType
from gateway.config import StdioServer
from gateway.upstream.base import UpstreamError, UpstreamRequest
from gateway.upstream.stdio import StdioUpstream
from gateway.upstream.subprocess import LineSplitter
from tests.upstream.stdio_rig import ECHO, PRELUDE, Start, is_alive, lines, result, script, until


def call(tool: str = "read") -> UpstreamRequest:
    return UpstreamRequest("tools/call", {"name": tool})


async def failure(upstream: StdioUpstream) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await upstream.request(call())
    return caught.value


# -- starting


async def test_requests_at_once_start_one_process_and_later_ones_use_it(start: Start, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    upstream = start(script('note(sys.argv[1], "start")\n' + ECHO, str(starts)))
    await asyncio.gather(*(upstream.request(call()) for _ in range(10)))
    await upstream.request(call())
    assert lines(starts) == ["start"]


async def test_a_waiter_that_is_cancelled_leaves_the_start_to_the_others(start: Start, tmp_path: Path) -> None:
    starts, go = tmp_path / "starts", tmp_path / "go"
    os.mkfifo(go)
    upstream = start(
        script('note(sys.argv[1], "start")\nopen(sys.argv[2]).read()\n' + ECHO, str(starts), str(go)),
    )
    impatient, patient = (asyncio.create_task(upstream.request(call())) for _ in range(2))
    await until(lambda: lines(starts))
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    go.write_text("go")
    await patient
    assert lines(starts) == ["start"]


async def test_the_environment_is_six_variables_and_the_servers_own(
    monkeypatch: pytest.MonkeyPatch, start: Start, tmp_path: Path
) -> None:
    monkeypatch.setenv("CALLSCOPE_SECRET", "not for servers")
    monkeypatch.setenv("HOME", "/home/relay")
    server = script(
        "modern()\nanswer(read(), [dict(os.environ), os.getcwd()])\nread()",
        env={"API_KEY": "k", "TERM": "dumb"},
        cwd=tmp_path,
    )
    environment, folder = result(await start(server).request(call()))
    assert (environment["API_KEY"], environment["TERM"], environment["HOME"]) == ("k", "dumb", "/home/relay")
    allowed = {"HOME", "LOGNAME", "PATH", "SHELL", "TERM", "USER", "API_KEY"}
    assert set(environment) - {"LC_CTYPE"} <= allowed  # Python itself sets LC_CTYPE in the C locale
    assert folder == str(tmp_path)


async def test_the_server_leads_a_session_of_its_own(start: Start) -> None:
    server = script("modern()\nanswer(read(), [os.getpid(), os.getsid(0), os.getpgid(0)])\nread()")
    pid, session, group = result(await start(server).request(call()))
    assert pid == session == group != os.getpgid(0)


async def test_the_server_inherits_its_three_streams_and_no_descriptor_of_the_gateway(start: Start) -> None:
    server = script("modern()\nanswer(read(), [os.path.exists(f'/dev/fd/{fd}') for fd in range(64)])\nread()")
    reading, writing = os.pipe()
    try:
        os.set_inheritable(reading, True)  # noqa: FBT003 - as the listening socket is, which the supervisor hands on
        there = result(await start(server).request(call()))
    finally:
        os.close(reading)
        os.close(writing)
    assert there == [True] * 3 + [False] * 61


async def test_a_command_is_found_by_the_servers_own_path_or_from_its_folder(start: Start, tmp_path: Path) -> None:
    program = tmp_path / "echo-server"
    program.write_text(f"#!{sys.executable} -IS\n{PRELUDE}{ECHO}")
    program.chmod(0o755)
    await start(StdioServer(command="echo-server", env={"PATH": str(tmp_path)})).request(call())
    await start(StdioServer(command="./echo-server", cwd=tmp_path)).request(call())


def _plain_file(folder: Path) -> StdioServer:
    (folder / "server").write_text("not a program")
    return StdioServer(command=str(folder / "server"))


def _no_interpreter(folder: Path) -> StdioServer:
    server = _plain_file(folder)
    (folder / "server").write_text("#!/no/such/interpreter\n")
    (folder / "server").chmod(0o755)
    return server


MISTAKES: dict[str, tuple[Callable[[Path], StdioServer], str]] = {
    "unknown": (
        lambda _: StdioServer(command="no-such-command-anywhere"),
        "cannot start 'no-such-command-anywhere': there is no such command in the PATH",
    ),
    "missing": (
        lambda folder: StdioServer(command=f"{folder}/nothing"),
        "cannot start '{folder}/nothing': there is no such file",
    ),
    "not executable": (_plain_file, "cannot start '{folder}/server': it is not executable"),
    "no interpreter": (_no_interpreter, "cannot start '{folder}/server': No such file or directory"),
    "no folder": (
        lambda folder: StdioServer(command=sys.executable, cwd=folder / "nowhere"),
        f"cannot start '{sys.executable}': its working directory {{folder}}/nowhere is not a folder",
    ),
    "a NUL": (
        lambda _: StdioServer(command=sys.executable, args=["\0"]),
        f"cannot start '{sys.executable}': embedded null byte",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
async def test_a_command_that_cannot_be_started_is_named(start: Start, tmp_path: Path, mistake: str) -> None:
    server, message = MISTAKES[mistake]
    upstream = start(server(tmp_path))
    error = await failure(upstream)
    assert error.error_type is ErrorType.UPSTREAM_UNREACHABLE
    assert str(error).lower().startswith(message.format(folder=tmp_path).lower())
    assert str(await failure(upstream)) == str(error)  # no pause: it may be installed by now


# -- dying

CLOSES = """
modern()
read()
os.close(int(sys.argv[2]))
note(sys.argv[1], str(os.getpid()))
while True:
    signal.pause()
"""


async def test_the_error_for_a_process_that_dies_names_its_status_and_its_last_line_on_stderr(start: Start) -> None:
    server = script("""
        print("reading the settings", file=sys.stderr)
        print("no such database", file=sys.stderr, end="")
        sys.exit(3)
    """)
    error = await failure(start(server))
    assert error.error_type is ErrorType.UPSTREAM_UNREACHABLE
    assert str(error) == "its process ended with exit status 3; its last line on stderr: 'no such database'"


async def test_every_call_under_way_fails_when_the_process_is_killed(start: Start) -> None:
    server = script("""
        modern()
        for _ in range(3):
            read()
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    upstream = start(server)
    outcomes = await asyncio.gather(*(upstream.request(call()) for _ in range(3)), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, UpstreamError)
        assert outcome.error_type is ErrorType.UPSTREAM_UNREACHABLE
        assert str(outcome) == "its process was killed by SIGKILL"


async def test_a_process_that_closes_its_output_but_lives_is_given_up_and_ended(start: Start, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    server = script(CLOSES, str(pids), "1")
    error = await failure(start(server, close_s=0.1))
    assert error.error_type is ErrorType.UPSTREAM_UNREACHABLE
    assert str(error) == "its process closed its standard streams"
    await until(lambda: not is_alive(int(lines(pids)[0])))


async def test_a_process_that_closes_its_input_but_lives_is_given_up_at_the_next_request_at_the_latest(
    start: Start, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    upstream = start(script(CLOSES, str(pids), "0"), close_s=0.1)
    first = asyncio.create_task(upstream.request(call()))
    await until(lambda: lines(pids))
    assert (await failure(upstream)).error_type is ErrorType.UPSTREAM_UNREACHABLE
    with pytest.raises(UpstreamError, match="its process closed its standard streams"):
        await first
    await until(lambda: not is_alive(int(lines(pids)[0])))


async def test_a_process_that_ended_is_started_again_by_the_next_request_after_a_pause(
    start: Start, tmp_path: Path
) -> None:
    starts = tmp_path / "starts"
    server = script(
        """
        note(sys.argv[1], "start")
        modern()
        request = read()
        if request["params"]["name"] == "crash":
            sys.exit(1)
        answer(request, "fine")
        """,
        str(starts),
    )
    upstream = start(server, restart_s=0.4)
    with pytest.raises(UpstreamError, match="exit status 1"):
        await upstream.request(call("crash"))
    assert str(await failure(upstream)).startswith(
        "its process ended with exit status 1; it is started again by a request in 0."
    )
    assert lines(starts) == ["start"]

    async def answers() -> bool:
        try:
            return bool(result(await upstream.request(call())) == "fine")
        except UpstreamError:
            return False

    for _ in range(1000):
        if await answers():
            break
        await asyncio.sleep(0.005)
    assert lines(starts) == ["start", "start"]


async def pause_after_the_next_death(upstream: StdioUpstream) -> int:
    """In whole seconds, as the request after it is told."""
    assert "it is started again" not in str(await failure(upstream))
    told = str(await failure(upstream))
    upstream._own._not_before = 0.0  # the pause is over
    return round(float(told.rpartition("request in ")[2].partition(" s")[0]))


async def test_the_pause_doubles_while_the_process_keeps_dying_and_has_a_limit(start: Start) -> None:
    upstream = start(script("read()\nsys.exit(1)"), restart_s=8.0)
    assert [await pause_after_the_next_death(upstream) for _ in range(4)] == [8, 16, 30, 30]


async def test_a_process_that_lived_long_resets_the_pauses(start: Start) -> None:
    server = script("""
        modern()
        while True:
            request = read()
            if request["params"]["name"] == "read":
                sys.exit(1)
            answer(request, "fine")
    """)
    upstream = start(server, restart_s=8.0)
    assert [await pause_after_the_next_death(upstream) for _ in range(2)] == [8, 16]
    await upstream.request(call("ping"))
    assert upstream._own._session is not None
    upstream._own._session.began -= 100  # it has lived for so long
    assert str(await failure(upstream)) == "its process ended with exit status 1"
    assert await pause_after_the_next_death(upstream) == 8


async def test_a_process_that_lived_long_is_started_again_without_a_pause(start: Start) -> None:
    upstream = start(script("modern()\nread()\nsys.exit(1)"), restart_s=60.0, stable_process_s=0.0)
    for _ in range(3):
        assert str(await failure(upstream)) == "its process ended with exit status 1"


async def test_a_process_is_started_only_when_the_one_before_is_gone(start: Start, tmp_path: Path) -> None:
    server = script(
        """
        import fcntl
        database = open(sys.argv[1], "w")
        fcntl.flock(database, fcntl.LOCK_EX | fcntl.LOCK_NB)
        modern()
        request = read()
        if request["params"]["name"] == "linger":
            os.close(1)
            while True:
                signal.pause()
        answer(request, "alone")
        read()
        """,
        str(tmp_path / "database"),
    )
    upstream = start(server, restart_s=0.0, close_s=0.1)
    with pytest.raises(UpstreamError, match="closed its standard streams"):
        await upstream.request(call("linger"))
    assert result(await upstream.request(call())) == "alone"


# -- standard error


async def test_lines_on_stderr_are_logged_with_the_servers_name_and_bounded(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway.upstream.stderr")
    server = script(r"""
        sys.stderr.write("\x1b[31mred\x1b[0m and bell\x07\n\n" + "x" * 100_000 + "\n")
        sys.stderr.buffer.write(b"\xff\n")
        sys.stderr.write("the end\n")
        sys.stderr.flush()
        modern()
        answer(read(), "fine")
        read()
    """)
    await start(server).request(call())
    await until(lambda: "server files: the end" in caplog.messages)
    told = [r.getMessage() for r in caplog.records if r.name == "gateway.upstream.stderr"]
    assert told == [
        "server files: red and bell",
        "server files: " + "x" * 4096,
        "server files: \ufffd",
        "server files: the end",
    ]


# -- stopping


async def test_closing_ends_the_process_and_the_calls_under_way(start: Start, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    server = script("modern()\nread()\nnote(sys.argv[1], str(os.getpid()))\nread()", str(pids))
    upstream = start(server)
    under_way = asyncio.create_task(upstream.request(call()))
    await until(lambda: lines(pids))
    await upstream.close()
    with pytest.raises(UpstreamError, match="the gateway has stopped its process") as caught:
        await under_way
    assert caught.value.error_type is ErrorType.UPSTREAM_UNREACHABLE
    assert not is_alive(int(lines(pids)[0]))
    assert str(await failure(upstream)) == "the gateway has stopped its process"


async def test_closing_in_the_middle_of_a_start_ends_the_process_too(start: Start, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    upstream = start(script("note(sys.argv[1], str(os.getpid()))\nread()\nread()", str(pids)))
    under_way = asyncio.create_task(upstream.request(call()))
    await until(lambda: lines(pids))
    await upstream.close()
    with pytest.raises(UpstreamError, match="the gateway has stopped its process"):
        await under_way
    assert not is_alive(int(lines(pids)[0]))
    assert len(lines(pids)) == 1


async def test_closing_what_was_never_started_or_is_closed_does_nothing(start: Start) -> None:
    upstream = start(script(ECHO))
    await upstream.close()
    await upstream.close()


async def test_a_server_that_ignores_everything_is_killed_with_all_that_it_started(
    start: Start, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    server = script(
        """
        modern()
        request = read()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.fork()
        note(sys.argv[1], str(os.getpid()))
        while True:
            signal.pause()
        """,
        str(pids),
    )
    upstream = start(server, close_s=0.1)
    under_way = asyncio.create_task(upstream.request(call()))
    await until(lambda: len(lines(pids)) == 2)
    await upstream.close()
    await until(lambda: not any(is_alive(int(pid)) for pid in lines(pids)))
    await asyncio.gather(under_way, return_exceptions=True)


async def test_a_child_that_outlives_its_server_is_ended_with_it(start: Start, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    server = script(
        """
        modern()
        read()
        if os.fork():
            sys.exit(4)
        note(sys.argv[1], str(os.getpid()))
        while True:
            signal.pause()
        """,
        str(pids),
    )
    error = await failure(start(server, close_s=0.1))
    assert str(error) == "its process ended with exit status 4"
    await until(lambda: lines(pids) and not is_alive(int(lines(pids)[0])))


RELAY = """
import asyncio, sys
import uvloop
from gateway.config import StdioServer
from gateway.upstream.base import DEFAULT_TIMINGS, UpstreamRequest
from gateway.upstream.stdio import StdioUpstream

async def main():
    server = StdioServer(command=sys.executable, args=["-I", "-S", "-c", sys.argv[1]])
    upstream = StdioUpstream("files", server, DEFAULT_TIMINGS)
    reply = await upstream.request(UpstreamRequest("tools/call", {}))
    print(bytes(reply.result).decode(), flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


def test_a_server_ends_when_the_relay_is_killed() -> None:
    program = PRELUDE + "modern()\nanswer(read(), os.getpid())\nread()"
    command = [sys.executable, "-c", RELAY, program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as relay:
        assert relay.stdout is not None
        pid = int(relay.stdout.readline())
        assert is_alive(pid)
        relay.send_signal(signal.SIGKILL)
    asyncio.run(until(lambda: not is_alive(pid)))


# -- lines


@given(st.lists(st.binary(max_size=20)), st.data())
def test_any_chunking_gives_the_same_lines(chunks: list[bytes], data: st.DataObject) -> None:
    text = b"\n".join(chunks) + b"\n"
    lines_, got = LineSplitter(1000), []
    while text:
        size = data.draw(st.integers(1, len(text)))
        got += lines_.feed(text[:size])
        text = text[size:]
    assert got == b"\n".join(chunks).split(b"\n")
    assert not lines_.begun
    assert lines_.cut == 0


@given(st.integers(1, 30), st.lists(st.integers(1, 10), min_size=1))
def test_a_line_over_the_limit_is_cut_there_and_counted_once(limit: int, sizes: list[int]) -> None:
    lines_ = LineSplitter(limit)
    for size in sizes:
        assert lines_.feed(b"x" * size) == []
    assert lines_.cut == (sum(sizes) > limit)
    assert lines_.feed(b"\nnext\n")[0] == b"x" * min(sum(sizes), limit)
