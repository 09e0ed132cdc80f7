"""Starting, pinning and measuring the processes of a bench."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
CORES: Final = sorted(os.sched_getaffinity(0))
MEASURED: Final = CORES[0]
"""The core of what is measured; all else shares the last one."""
REST: Final = CORES[-1]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def pin(pid: int, core: int) -> None:
    """Keep every thread of a process on one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


@contextlib.contextmanager
def running(*arguments: str, port: int, core: int | None, folder: Path | None = None) -> Iterator[int]:
    """A Python process, from when it listens on `port` to the end of the block; its pid.

    Without `core` it may use all of them; without `folder` it begins in this one.
    """
    environment = {**os.environ, "PYTHONPATH": str(folder or Path.cwd())}
    process = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment)
    try:
        if core is not None:
            pin(process.pid, core)
        wait_for(port, process)
        if core is not None:
            pin(process.pid, core)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens.

    Raises:
        RuntimeError: the process ended, or a minute passed.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen on {port}")


def load(port: int, path: str, tool: str, secret: str, *, connections: int, seconds: float) -> dict[str, Any]:
    """One round of load from a process of its own, on the core that is not measured."""
    arguments = [str(port), path, tool, secret, str(connections), str(seconds)]
    process = subprocess.Popen([sys.executable, "-m", "bench.load", *arguments], stdout=subprocess.PIPE)
    pin(process.pid, REST)
    output, _ = process.communicate(timeout=seconds + 60)
    answer: dict[str, Any] = json.loads(output)
    return answer


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition.

    Raises:
        RuntimeError: it did not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{condition} did not hold within {seconds:g} s")
        time.sleep(0.02)


def settle(pids: list[int], seconds: float = 60.0) -> None:
    """Wait until the processes have nothing left to do: less than a tenth of a core over half a second."""
    deadline = time.monotonic() + seconds
    before = [cpu_seconds(pid) for pid in pids]
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = [cpu_seconds(pid) for pid in pids]
        if all(after - earlier < 0.05 for earlier, after in zip(before, now, strict=True)):
            return
        before = now
