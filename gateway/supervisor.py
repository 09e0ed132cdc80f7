"""`callscope serve`: starts the observer and the relays, restarts what dies, and drains all of them at the end.

It binds both sockets and keeps them open, so that connections survive the death of a process: the next one accepts
them. Its children inherit the read end of a pipe whose write end it alone holds: if it is killed, they see the end of
the pipe, finish what they have and stop.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from gateway.backoff import Backoff
from gateway.config import Address, Config
from gateway.errors import StartError
from gateway.process import Launch, log_to_stderr, stop_requested, wait_at_most, wait_or_kill

logger = logging.getLogger(__name__)

READY_TIMEOUT_S: Final = 60.0
DRAIN_TIMEOUT_S: Final = 45.0
STABLE_S: Final = 30.0
"""A process that ran for so long is restarted without a pause when it dies."""
BACKLOG: Final = 2048
UMASK: Final = 0o027
"""Error messages of tools are in the data directory; they are not for every user of the machine."""

ADVICE: Final = {
    errno.EADDRINUSE: "stop what uses it, or choose another port",
    errno.EACCES: "ports below 1024 need a privilege: choose a higher one, or grant CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "choose an address of this machine: 127.0.0.1, or 0.0.0.0 for all of them",
}


class SupervisedProcess:
    """One process, which is restarted until it is asked to stop."""

    def __init__(self, module: str, launch: Launch) -> None:
        self.name = launch.name
        self.restarts = 0
        self._module = module
        self._launch = launch
        self._process: asyncio.subprocess.Process | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the current process serves: it has written its pid into its run file."""
        try:
            return self._process is not None and self._launch.run_file.read_text() == f"{self._process.pid}\n"
        except OSError:
            return False

    async def keep_running(self, stop: asyncio.Event) -> None:
        """Run the process until `stop`; restart it after a growing pause whenever it ends before."""
        backoff = Backoff(0.1, 10.0)
        while not stop.is_set():
            started_at = time.monotonic()
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                *self._launch.arguments(),
                pass_fds=(self._launch.fd, self._launch.parent_pipe),
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,  # the terminal sends Ctrl-C to the supervisor alone, which stops the others
            )
            status = await self._process.wait()
            if stop.is_set():
                return
            if time.monotonic() - started_at >= STABLE_S:
                backoff.reset()
                pause = 0.0
            else:
                pause = backoff.failed()
            self.restarts += 1
            logger.error("%s ended with status %d; starting it again in %.1f s", self.name, status, pause)
            await wait_at_most(stop, pause)

    async def drain(self, seconds: float) -> None:
        """Ask the process to stop, and kill it if it has not stopped within `seconds`."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        if not await wait_or_kill(process, seconds):
            logger.error("%s did not stop within %.0f s and was killed", self.name, seconds)


def bind(address: Address) -> socket.socket:
    """A socket that listens on `address`.

    Raises:
        StartError: the address is in use, or not one of this machine.
    """
    sock = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        advice = ADVICE.get(error.errno or 0, "choose another address")
        raise StartError(f"cannot listen on {address}: {error.strerror or error}; {advice}") from error
    sock.setblocking(False)  # noqa: FBT003 - the socket's own signature
    return sock


@contextlib.contextmanager
def locked(data_dir: Path) -> Iterator[Path]:
    """The folder `run/` of a data directory that no other supervisor uses, with this one's pid in it.

    Raises:
        StartError: another supervisor uses it, or it cannot be created.
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
            f"data_dir {data_dir} cannot be used: {error.strerror}; choose a folder that can be created and written"
        ) from error
    with open(descriptor, "r+b", buffering=0) as file:  # noqa: PTH123 - a descriptor, whose lock ends when it is closed
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = file.read(32).decode().strip()
            raise StartError(
                f"{data_dir} is used by another callscope (pid {pid}): stop it, or choose another data_dir"
            ) from error
        file.truncate()
        file.write(b"%d\n" % os.getpid())
        yield run
        pid_file.unlink(missing_ok=True)


async def serve(config_path: Path, config: Config, *, workers: int, announce: Callable[[str], None]) -> None:
    """Run both planes until SIGTERM or SIGINT; `announce` gets one line when they are ready.

    Raises:
        StartError: an address or the data directory is in use, or a process did not become ready.
    """
    log_to_stderr("supervisor")
    os.umask(os.umask(UMASK) | UMASK)  # a stricter one stays
    with contextlib.ExitStack() as resources:
        run = resources.enter_context(locked(config.data_dir))
        relay_socket = resources.enter_context(bind(config.listen))
        observer_socket = resources.enter_context(bind(config.observer.listen))
        read_end, write_end = os.pipe()
        resources.callback(os.close, read_end)
        resources.callback(os.close, write_end)

        def supervised(module: str, name: str, sock: socket.socket) -> SupervisedProcess:
            run_file = run / f"{name}.pid"
            run_file.unlink(missing_ok=True)
            launch = Launch(config=config_path, fd=sock.fileno(), run_file=run_file, parent_pipe=read_end)
            return SupervisedProcess(module, launch)

        relays = [supervised("gateway.relay", f"relay-{i}", relay_socket) for i in range(workers)]
        observer = supervised("gateway.observer", "observer", observer_socket)
        async with stop_requested() as stop, asyncio.TaskGroup() as tasks:
            for process in (observer, *relays):
                tasks.create_task(process.keep_running(stop))
            try:
                await _until_ready((observer, *relays), stop)
                if not stop.is_set():
                    relay_url, observer_url = _url(relay_socket), _url(observer_socket)
                    announce(f"callscope is ready: relay {relay_url}/ws/<workspace>, observer {observer_url}/metrics")
                await stop.wait()
            finally:
                stop.set()
                await asyncio.gather(*(relay.drain(DRAIN_TIMEOUT_S) for relay in relays))
                await observer.drain(DRAIN_TIMEOUT_S)  # last: it records what the relays still answered


async def _until_ready(processes: Sequence[SupervisedProcess], stop: asyncio.Event) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not stop.is_set():
        waiting = [process.name for process in processes if not process.is_ready]
        failing = [process.name for process in processes if process.restarts >= 3]  # noqa: PLR2004 - twice may be chance
        if not waiting:
            return
        if failing or time.monotonic() > deadline:
            raise StartError(f"{', '.join(failing or waiting)} did not become ready: the log above says why")
        await wait_at_most(stop, 0.02)


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
