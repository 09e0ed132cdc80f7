"""What all processes of the supervisor share: options, log, when they stop, and how they serve an ASGI application.

A process is one call of `run` with one coroutine, which opens the application's resources around `serve`:

    async def main(launch: Launch) -> None:
        async with stop_requested(launch.parent_pipe) as stop, open_everything() as app:
            await serve(app, launch.socket(), stop=stop, run_file=launch.run_file)

    if __name__ == "__main__":
        run(main)

It stops at SIGTERM, at SIGINT, or when the supervisor dies, which closes the write end of `parent_pipe`.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_type_hints

import uvicorn
import uvloop
from starlette.types import ASGIApp

from gateway import atomic_file
from gateway.errors import CallscopeError, StartError, messages

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """The options of a process: `arguments` writes its command line, `parse` reads it."""

    config: Path
    fd: int
    """An inherited socket, which is bound and listens."""
    run_file: Path
    """Holds the pid while the process serves; its stem is the process's name: `relay-0`, `observer`."""
    parent_pipe: int
    """The read end of a pipe whose write end the supervisor alone holds: at its end of file the supervisor is dead."""

    @property
    def name(self) -> str:
        return self.run_file.stem

    def arguments(self) -> list[str]:
        """The command line; `fd` and `parent_pipe` are inherited by `pass_fds`."""
        return [f"--{name.replace('_', '-')}={getattr(self, name)}" for name in get_type_hints(type(self))]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        parser = argparse.ArgumentParser(description="A process of Callscope; `callscope serve` starts it.")
        for name, kind in get_type_hints(cls).items():
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind, required=True)
        return cls(**vars(parser.parse_args(arguments)))

    def socket(self) -> socket.socket:
        """The inherited socket.

        Raises:
            StartError: `fd` is not a socket.
        """
        try:
            return socket.socket(fileno=self.fd)
        except OSError as error:
            raise StartError(f"--fd {self.fd} is not an inherited socket: {error.strerror}") from error


def run(main: Callable[[Launch], Coroutine[Any, Any, None]]) -> None:
    """Run a process to its end: exit status 0 after a request to stop, 1 with the reason logged if it cannot start."""
    launch = Launch.parse(sys.argv[1:])
    log_to_stderr(launch.name)
    try:
        uvloop.run(main(launch))
    except* CallscopeError as group:
        for line in "\n".join(messages(group)).splitlines():
            logger.error("%s", line)  # noqa: TRY400 - a person reads it; a traceback says nothing more
        sys.exit(1)


def log_to_stderr(name: str) -> None:
    """One line per record, with the process's name; libraries log from WARNING on."""
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s %(levelname)s {name.replace('%', '%%')} %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for library in ("uvicorn", "httpx", "watchfiles"):
        logging.getLogger(library).setLevel(logging.WARNING)


@contextlib.asynccontextmanager
async def stop_requested(parent_pipe: int | None = None) -> AsyncIterator[asyncio.Event]:
    """An event that is set at SIGTERM, at SIGINT, or when the supervisor dies (if there is a `parent_pipe`)."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def request(why: str) -> None:
        if not stop.is_set():
            logger.info("stopping: %s", why)
            stop.set()

    def read_parent_pipe(descriptor: int) -> None:
        if not os.read(descriptor, 1):
            loop.remove_reader(descriptor)
            request("the supervisor ended")

    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, request, number.name)
    if parent_pipe is not None:
        loop.add_reader(parent_pipe, read_parent_pipe, parent_pipe)
    try:
        yield stop
    finally:
        if parent_pipe is not None:
            loop.remove_reader(parent_pipe)
        for number in signals:
            loop.remove_signal_handler(number)


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Sleep for `seconds`, or until `event` is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def wait_or_kill(process: asyncio.subprocess.Process, seconds: float) -> bool:
    """Wait until a process ends, and kill it after `seconds`: whether it ended by itself."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await process.wait()
            return True
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
    return False


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    *,
    stop: asyncio.Event,
    run_file: Path | None = None,
    grace_seconds: int = 10,
    keep_alive_seconds: int = 75,
    http: type[asyncio.Protocol] | Literal["httptools"] = "httptools",
) -> None:
    """Serve `app` over HTTP/1.1 on `sock`, which already listens, until `stop` is set.

    After that no connection is accepted, and running responses have `grace_seconds` to end before they are cancelled.
    An endless stream must watch `stop` itself. The ASGI lifespan is not run: open what the application needs around
    this call. `run_file` holds the pid from the first accepted connection to a clean end. `http` is uvicorn's own
    protocol, or a class in its place.
    """
    config = uvicorn.Config(
        app,
        http=http,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=keep_alive_seconds,
        timeout_graceful_shutdown=grace_seconds,
    )
    server = _Server(config, run_file)

    async def pass_on() -> None:
        await stop.wait()
        server.should_exit = True

    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(pass_on())
            await server.serve(sockets=[sock])
            watching.cancel()
    finally:
        if run_file is not None:
            _remove_run_file(run_file)


class _Server(uvicorn.Server):
    """Leaves signals to `stop_requested` (uvicorn would raise them again at the end), and writes the run file."""

    def __init__(self, config: uvicorn.Config, run_file: Path | None) -> None:
        super().__init__(config)
        self._run_file = run_file

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._run_file is not None:
            with atomic_file.replacing(self._run_file) as file:
                file.write(b"%d\n" % os.getpid())


def _remove_run_file(path: Path) -> None:
    # If another process has already taken our place, the file is its own and stays.
    with contextlib.suppress(FileNotFoundError):
        if path.read_text().strip() == str(os.getpid()):
            path.unlink()
