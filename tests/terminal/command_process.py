"""Commands as they are typed: in a process, with a pipe or a terminal behind them."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import Self

CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
HOME = "\x1b[H"
"""Begins each frame of a full screen."""


class Piped:
    """A command whose lines are read while it runs. A context manager."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        """The next line that it prints."""
        assert self.process.stdout is not None
        with _at_most(60, self.process):
            return self.process.stdout.readline().rstrip("\n")

    def complaint(self) -> str:
        """The next line that it says on stderr."""
        assert self.process.stderr is not None
        with _at_most(60, self.process):
            return self.process.stderr.readline().rstrip("\n")

    def interrupt(self) -> tuple[int, str, str]:
        """The status after Ctrl-C, and what it still said on stdout and stderr."""
        self.process.send_signal(signal.SIGINT)
        said, complained = self.process.communicate(timeout=60)
        return self.process.returncode, said, complained


@contextlib.contextmanager
def _at_most(seconds: float, process: subprocess.Popen[str]) -> Iterator[None]:
    """A reader of a process that says nothing is let go: the process is killed."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Terminal:
    """A command in a terminal of a size. A context manager."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24) -> None:
        self.said = ""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environ, "TERM": "xterm-256color"},
        )
        os.close(slave)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def until(self, pattern: str) -> str:
        """Read until the newest frame, without colors, has the pattern: that frame."""
        deadline = time.monotonic() + 60
        while not re.search(pattern, self.frame()):
            assert time.monotonic() < deadline, self.said
            assert self._read(), self.said
        return self.frame()

    def next_frame(self) -> None:
        """Read until another frame begins."""
        seen = self.said.count(HOME)
        deadline = time.monotonic() + 60
        while self.said.count(HOME) == seen:
            assert time.monotonic() < deadline, self.said
            assert self._read(), self.said

    def frame(self) -> str:
        """What came since the cursor was last sent home, without colors."""
        return CONTROLS.sub("", self.said.rpartition(HOME)[2]).replace("\r\n", "\n")

    def ended(self) -> int:
        """The status, once it has ended and everything is read."""
        while self._read():
            pass
        return self.process.wait(timeout=60)

    def _read(self) -> bool:
        """Whether there was more within a while, or may be."""
        ready, _, _ = select.select([self._master], [], [], 0.1)
        if not ready:
            return True
        try:
            data = os.read(self._master, 2**16)
        except OSError:  # what Linux answers when the other side is closed
            return False
        self.said += data.decode(errors="replace")
        return bool(data)
