"""`callscope serve`: starts the observer and the relays, starts again what died, drains all of them at the end.

It binds both sockets and never closes them while it lives, so that a process that dies takes no connection with it: the
next one accepts it. Its children hold the read end of a pipe of which it alone has the write end: if it is killed, they
see the end of the pipe, finish what they have and stop.
"""

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from gateway.config import Address, Config
from gateway.errors import StartError
from gateway.process import Launch, log_to_stderr, stop_requested

logger = logging.getLogger(__name__)

READY_TIMEOUT_S: Final = 60.0
DRAIN_TIMEOUT_S: Final = 45.0
MAX_BACKOFF_S: Final = 10.0
STABLE_S: Final = 30.0
"""A process that lived this long is started again at once when it dies."""
BACKLOG: Final = 2048
NOT_FOR_OTHERS: Final = 0o027
"""The umask of `callscope serve`: what fails may be told in the data directory, and is not every user's to read."""

ADVICE: Final = {
    errno.EADDRINUSE: "stop what uses it, or name another port",
    errno.EACCES: "ports below 1024 are not every user's: name a higher one, or grant CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "name an address of this machine: 127.0.0.1, or 0.0.0.0 for all that it has",
}
"""What helps against an address that cannot be had, by errno."""


class SupervisedProcess:
    """One process, started again for as long as it is wanted."""

    def __init__(self, module: str, launch: Launch) -> None:
        self.name = launch.name
        self._module = module
        self._launch = launch
        self._process: asyncio.subprocess.Process | None = None
        self._failures = 0
        self.restarts = 0

    @property
    def is_ready(self) -> bool:
        """Whether the process that runs now has said that it serves: its run file has its pid."""
        if self._process is None:
            return False
        try:
            return self._launch.run_file.read_text().strip() == str(self._process.pid)
        except OSError:
            return False

    async def keep_running(self, stop: asyncio.Event) -> None:
        """Run the process until `stop`; what dies before is started again, after a pause that grows."""
        while not stop.is_set():
            began = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                *self._launch.arguments(),
                pass_fds=(self._launch.fd, self._launch.parent_pipe),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is the supervisor's to pass on
            )
            status = await self._process.wait()
            if stop.is_set():
                return
            self._failures = 0 if time.monotonic() - began >= STABLE_S else self._failures + 1
            pause = min(0.1 * 2 ** (self._failures - 1), MAX_BACKOFF_S) if self._failures else 0.0
            self.restarts += 1
            logger.error("%s ended with status %d; starting it again in %.1f s", self.name, status, pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()

    async def drain(self, seconds: float) -> None:
        """Ask the process to stop, and end it if it has not within `seconds`."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            logger.error("%s did not stop within %.0f s and is killed", self.name, seconds)  # noqa: TRY400 - it is the news
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def bind(address: Address) -> socket.socket:
    """A socket that listens on `address`.

    Raises:
        StartError: the address is taken, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        advice = ADVICE.get(error.errno or 0, "name another address")
        raise StartError(f"cannot listen on {address}: {error.strerror or error}; {advice}") from error
    sock.setblocking(False)  # noqa: FBT003 - the socket's own signature
    return sock


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[Path]:
    """The folder `run/` of a data directory that no other supervisor uses, with this one's pid in it.

    Raises:
        StartError: another supervisor uses it, or it cannot be made.
    """
    run = data_dir / "run"
    pid_file = run / "supervisor.pid"
    try:
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(pid_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        if data_dir.stat().st_mode & stat.S_IRWXO:
            logger.warning("data_dir %s is open to every user of this machine: chmod o-rwx %s", data_dir, data_dir)
    except OSError as error:
        raise StartError(
            f"data_dir {data_dir} cannot be used: {error.strerror}; name a folder that can be made and written"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(descriptor, 32).decode().strip()
            raise StartError(
                f"{data_dir} is used by another callscope (pid {pid}): stop it, or name another data_dir"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield run
        pid_file.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


async def serve(config_path: Path, config: Config, *, workers: int, announce: Callable[[str], None]) -> None:
    """Run both planes until SIGTERM or SIGINT; `announce` gets the line that says that they are ready.

    What it and its processes write is nobody's to read but the user's and the group's.

    Raises:
        StartError: an address or the data directory is taken, or a process did not become ready.
    """
    log_to_stderr("supervisor")
    os.umask(os.umask(NOT_FOR_OTHERS) | NOT_FOR_OTHERS)  # a stricter one stays
    with contextlib.ExitStack() as resources:
        run = resources.enter_context(locked(config.data_dir))
        relay_socket = resources.enter_context(bind(config.listen))
        observer_socket = resources.enter_context(bind(config.observer.listen))
        parent_pipe, alive = os.pipe()
        resources.callback(os.close, parent_pipe)
        resources.callback(os.close, alive)

        def child(module: str, name: str, sock: socket.socket) -> SupervisedProcess:
            run_file = run / f"{name}.pid"
            run_file.unlink(missing_ok=True)
            launch = Launch(config=config_path, fd=sock.fileno(), run_file=run_file, parent_pipe=parent_pipe)
            return SupervisedProcess(module, launch)

        relays = [child("gateway.relay", f"relay-{i}", relay_socket) for i in range(workers)]
        observer = child("gateway.observer", "observer", observer_socket)
        async with stop_requested() as stop, asyncio.TaskGroup() as tasks:
            for each in (observer, *relays):
                tasks.create_task(each.keep_running(stop))
            try:
                await _ready((observer, *relays), stop)
                if not stop.is_set():
                    addresses = (_url(relay_socket), _url(observer_socket))
                    announce("callscope is ready: relay {}/ws/<workspace>, observer {}/metrics".format(*addresses))
                await stop.wait()
            finally:
                stop.set()
                await asyncio.gather(*(relay.drain(DRAIN_TIMEOUT_S) for relay in relays))
                await observer.drain(DRAIN_TIMEOUT_S)  # last: it records what the relays still answered


async def _ready(children: tuple[SupervisedProcess, ...], stop: asyncio.Event) -> None:
    """Wait until every process serves."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not stop.is_set() and not all(child.is_ready for child in children):
        failing = [child.name for child in children if child.restarts >= 3]  # noqa: PLR2004 - twice may be chance
        if failing or time.monotonic() > deadline:
            names = ", ".join(failing or [child.name for child in children if not child.is_ready])
            raise StartError(f"{names} did not become ready: the log above says why")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await stop.wait()


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
