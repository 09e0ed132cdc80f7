"""A process as the supervisor starts it: inherited socket, run file, parent_pipe, signals."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from gateway.errors import StartError
from gateway.process import Launch, wait_at_most, wait_or_kill

PROGRAM = """
import asyncio
from gateway.errors import StartError
from gateway.process import run, serve, stop_requested

async def main(launch):
    if launch.config.name == "refused":
        raise StartError("the first reason\\nthe second reason")
    async with stop_requested(launch.parent_pipe) as stop:
        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            if scope["path"] == "/stream":
                await send({"type": "http.response.body", "body": b"begun", "more_body": True})
                await stop.wait()
            await send({"type": "http.response.body", "body": b"done"})

        await serve(app, launch.socket(), stop=stop, run_file=launch.run_file)

run(main)
"""


class Started:
    """One process, its URL and the supervisor's end of its parent_pipe."""

    def __init__(self, folder: Path, config: str = "callscope.yaml") -> None:
        self.run_file = folder / "run" / "relay-0.pid"
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        parent_pipe, self.write_end = os.pipe()
        launch = Launch(config=Path(config), fd=self.socket.fileno(), run_file=self.run_file, parent_pipe=parent_pipe)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *launch.arguments()],
            pass_fds=(launch.fd, parent_pipe),
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(parent_pipe)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while not self.run_file.exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)

    def end(self) -> tuple[int, str]:
        """The status and the log."""
        _, log = self.process.communicate(timeout=60)
        return self.process.returncode, log


@contextmanager
def started(folder: Path, config: str = "callscope.yaml") -> Iterator[Started]:
    process = Started(folder, config)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.communicate()
        process.socket.close()
        os.close(process.write_end)


def test_a_process_says_that_it_serves_and_takes_that_back_at_a_clean_end(tmp_path: Path) -> None:
    with started(tmp_path) as it:
        it.wait_until_ready()
        assert it.run_file.read_text() == f"{it.process.pid}\n"
        assert httpx.get(it.url).text == "done"

        it.process.send_signal(signal.SIGTERM)
        status, log = it.end()

        assert status == 0
        assert not it.run_file.exists()
        assert "INFO relay-0 gateway.process: stopping: SIGTERM" in log


def test_a_process_whose_supervisor_is_killed_stops(tmp_path: Path) -> None:
    with started(tmp_path) as it:
        it.wait_until_ready()
        write_end = it.write_end
        it.write_end = os.open(os.devnull, os.O_RDONLY)
        os.close(write_end)

        status, log = it.end()

        assert status == 0
        assert "stopping: the supervisor ended" in log


def test_an_answer_in_the_making_is_finished_before_the_end(tmp_path: Path) -> None:
    with started(tmp_path) as it:
        it.wait_until_ready()
        with httpx.stream("GET", f"{it.url}/stream") as response:
            chunks = response.iter_text()
            assert next(chunks) == "begun"
            it.process.send_signal(signal.SIGINT)
            assert "".join(chunks) == "done"

        assert it.end()[0] == 0


def test_a_successors_run_file_stays(tmp_path: Path) -> None:
    with started(tmp_path) as it:
        it.wait_until_ready()
        it.run_file.write_text("1\n")
        it.process.send_signal(signal.SIGTERM)
        it.end()

        assert it.run_file.read_text() == "1\n"


def test_a_process_that_cannot_start_says_why_in_lines_and_ends_with_status_1(tmp_path: Path) -> None:
    with started(tmp_path, config="refused") as it:
        status, log = it.end()

    assert status == 1
    assert [line.partition("gateway.process: ")[2] for line in log.splitlines()] == [
        "the first reason",
        "the second reason",
    ]


def test_what_is_written_on_the_command_line_is_read_from_it() -> None:
    launch = Launch(config=Path("a b.yaml"), fd=7, run_file=Path("run/observer.pid"), parent_pipe=8)

    assert Launch.parse(launch.arguments()) == launch
    assert launch.name == "observer"


def test_a_descriptor_that_is_no_socket_is_named(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        launch = Launch(config=Path("c"), fd=file.fileno(), run_file=Path("r"), parent_pipe=8)

        with pytest.raises(StartError, match=f"--fd {file.fileno()} is not an inherited socket"):
            launch.socket()


async def test_a_process_that_does_not_end_in_time_is_killed() -> None:
    stubborn = await asyncio.create_subprocess_exec("sleep", "3600")
    quick = await asyncio.create_subprocess_exec("true")

    assert not await wait_or_kill(stubborn, 0.01)
    assert stubborn.returncode == -signal.SIGKILL
    assert await wait_or_kill(quick, 60)
    assert quick.returncode == 0


async def test_a_wait_ends_with_its_event_or_after_its_time() -> None:
    event = asyncio.Event()
    began = time.monotonic()
    await wait_at_most(event, 0.05)
    assert time.monotonic() - began >= 0.04, "it returned before the event and before its time"
    event.set()

    await asyncio.wait_for(wait_at_most(event, 3600), 60)
