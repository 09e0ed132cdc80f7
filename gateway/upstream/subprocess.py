"""One server process and its standard streams: lines in, lines out, and how it ended.

Laws: it leads a process group of its own, so that what it has started ends with it; it inherits three pipes and no
other descriptor; a line is whole or it is not passed on; whoever has started it stops it.

The process is `subprocess.Popen`'s, not the event loop's: processes of uvloop inherit every inheritable descriptor, the
gateway's listening socket among them, and get sockets, which a shell cannot open as `/dev/stderr`.
"""

import asyncio
import logging
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.errors import CallscopeError

stderr_logger = logging.getLogger("gateway.upstream.stderr")

MAX_LINE_BYTES: Final = 64 * 2**20
MAX_STDERR_LINE_BYTES: Final = 4096
MAX_UNSENT_BYTES: Final = 2**20
"""With more unsent, a process that does not read gets no more responses and cancellations; requests wait anyway."""
LAST_WORDS_S: Final = 0.5
"""How long the rest of the streams and the exit status may take once one of them has ended."""
_UNPRINTABLE: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f]")

OnLine = Callable[[bytes, int], None]
"""Takes one line without its end, and when its first byte came (`perf_counter_ns`)."""


class SpawnError(CallscopeError):
    """A command cannot be run."""


class LineSplitter:
    """Chunks in, whole lines out; a line over `limit` bytes is cut there, and counted in `cut` at once."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self.cut = 0

    @property
    def begun(self) -> bool:
        """Whether a part of a line has come."""
        return bool(self._parts)

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk; the lines that it completed, in order, without their ends."""
        *ends, rest = chunk.split(b"\n")
        lines = []
        for end in ends:
            self._take(end)
            lines.append(self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
            self._parts, self._size = [], 0
        if rest:
            self._take(rest)
        return lines

    def _take(self, part: bytes) -> None:
        room = self._limit - self._size
        self._size += len(part)
        if room >= len(part):
            self._parts.append(part)
        elif room >= 0:
            self.cut += 1
            self._parts.append(part[:room])
            self._size = self._limit + 1


class _Pipe(asyncio.Protocol):
    """The gateway's end of one of the three streams."""

    def __init__(self, receive: Callable[[bytes], None] | None, ended: Callable[["_Pipe"], None]) -> None:
        self._receive = receive
        self._ended = ended
        self.writable = asyncio.Event()
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        if self._receive is not None:
            self._receive(data)

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._ended(self)


class Subprocess:
    """A process. `on_line` is called for each line that it writes, `on_end` once, when none will come any more."""

    def __init__(self, slug: str, on_line: OnLine, on_end: Callable[[], None], grace_s: float) -> None:
        self._slug = slug
        self._on_line = on_line
        self._on_end = on_end
        self._grace_s = grace_s
        """For each step of `stop`."""
        self._loop = asyncio.get_running_loop()
        self._input = _Pipe(None, lambda _: self._lose())
        self._stdout = LineSplitter(MAX_LINE_BYTES)
        self._stderr = LineSplitter(MAX_STDERR_LINE_BYTES)
        self._outputs = [_Pipe(self._read_stdout, self._output_ended), _Pipe(self._read_stderr, self._output_ended)]
        self._open = set(self._outputs)
        self._transports: list[asyncio.BaseTransport] = []
        self._line_began_ns = 0
        self._status: int | None = None
        self._last_stderr = ""
        self._reason = ""
        """Why the gateway has given it up."""
        self._last_words: asyncio.TimerHandle | None = None
        self._gone = asyncio.Event()
        """Nothing is left of it: it has exited, and nobody holds its streams."""
        self._ended = asyncio.Event()
        self.lost = False
        """Whether one of its streams or the process itself has ended: it takes no more requests."""
        self.line_too_long = False

    @property
    def ended(self) -> bool:
        """Whether nothing more will come from it."""
        return self._ended.is_set()

    async def start(self, command: Sequence[str], environment: Mapping[str, str], cwd: Path | None) -> None:
        """Run a command, found by the `PATH` of `environment`; lines may come before this returns.

        Raises:
            SpawnError: there is no such command or folder, or it cannot be executed.
        """
        program = _find(command[0], environment, cwd)
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - a vfork; the operator's own command
                [program, *command[1:]],
                bufsize=0,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=environment,
                cwd=cwd,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise SpawnError(f"cannot start {command[0]!r}: {getattr(error, 'strerror', None) or error}") from error
        process, loop = self._process, self._loop
        self._stdin, _ = await loop.connect_write_pipe(lambda: self._input, process.stdin)
        for output, stream in zip(self._outputs, (process.stdout, process.stderr), strict=True):
            transport, _ = await loop.connect_read_pipe(lambda output=output: output, stream)  # type: ignore[misc]  # bound now
            self._transports.append(transport)
        threading.Thread(target=self._wait, name=f"wait-{self._slug}", daemon=True).start()

    # -- what its owner uses

    async def until_ended(self) -> None:
        """Wait for the end of a process that is lost; at most `LAST_WORDS_S`."""
        await self._ended.wait()

    async def writable(self) -> None:
        """Wait until the process has read most of what it was sent, or is lost."""
        while not (self.lost or self._input.writable.is_set()):
            await self._input.writable.wait()

    def write(self, line: bytes) -> None:
        """Send a message as one line: between JSON's tokens it may have line breaks, which are replaced."""
        if self.lost or self._stdin.is_closing():
            return
        if b"\n" in line or b"\r" in line:
            line = line.replace(b"\n", b" ").replace(b"\r", b" ")
        self._stdin.write(line + b"\n")

    def write_unless_full(self, line: bytes) -> None:
        """Send a line that nobody waits for, unless the process does not read."""
        if self._stdin.get_write_buffer_size() < MAX_UNSENT_BYTES:
            self.write(line)

    def give_up(self, reason: str) -> None:
        """Expect nothing more from it; `ending` will give this reason."""
        self._reason = self._reason or reason
        self._lose()
        self._end()

    @property
    def ending(self) -> str:
        """Why there is no process any more, for a person."""
        if self._reason:
            return self._reason
        if self._status is None:
            how = "its process closed its standard streams"
        elif self._status < 0:
            how = f"its process was killed by {_signal_name(-self._status)}"
        else:
            how = f"its process ended with exit status {self._status}"
        return f"{how}; its last line on stderr: {self._last_stderr!r}" if self._last_stderr else how

    async def stop(self) -> None:
        """Close its input, then SIGTERM, then SIGKILL, to the whole group; each step gets `grace_s`."""
        self._lose()
        self._stdin.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                self._signal_group(number)
            try:
                async with asyncio.timeout(self._grace_s):
                    await self._gone.wait()
                break
            except TimeoutError:
                continue
        else:
            stderr_logger.error("server %s: its process %d survived SIGKILL", self._slug, self._process.pid)
        self._end()
        if self._stdin.get_write_buffer_size():  # otherwise it is closed: asyncio's must not be closed twice
            self._stdin.abort()
        for transport in self._transports:
            transport.close()

    def _signal_group(self, number: signal.Signals) -> None:
        """The leader may be gone while its children are not: the group has its number as long as one of them lives."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError) as error:
            stderr_logger.debug("server %s: no %s: %s", self._slug, number.name, error)

    # -- what the process does

    def _read_stdout(self, data: bytes) -> None:
        if self.ended:
            return
        now = time.perf_counter_ns()
        began = self._line_began_ns if self._stdout.begun else now
        lines = self._stdout.feed(data)
        if self._stdout.cut:
            self.line_too_long = True
            self.give_up(f"sent a line of more than {MAX_LINE_BYTES} bytes")
            return
        for line in lines:
            self._on_line(line, began)
            began = now
        self._line_began_ns = began

    def _read_stderr(self, data: bytes) -> None:
        for line in self._stderr.feed(data):
            text = _UNPRINTABLE.sub("", line.decode("utf-8", "replace")).strip()
            if text:
                self._last_stderr = text
                stderr_logger.info("server %s: %s", self._slug, text)

    def _output_ended(self, output: _Pipe) -> None:
        """A process without stdout is of no use, but it may still say why on stderr, which it may close at any time."""
        self._open.discard(output)
        if output is self._outputs[0]:
            self._lose()
        else:
            self._read_stderr(b"\n")
        self._end_if_gone()

    def _wait(self) -> None:
        """In a thread: neither asyncio nor uvloop waits for a process that is not its own."""
        status = self._process.wait()
        try:
            self._loop.call_soon_threadsafe(self._exited, status)
        except RuntimeError:  # the loop is closed, so nobody wants to know
            stderr_logger.debug("server %s: ended after the event loop", self._slug)

    def _exited(self, status: int) -> None:
        """The process has ended; what it wrote may still be on its way."""
        self._status = status
        self._lose()
        self._end_if_gone()

    def _lose(self) -> None:
        if self.lost:
            return
        self.lost = True
        self._input.writable.set()  # nothing will be read any more: release those who wait to write
        self._last_words = self._loop.call_later(LAST_WORDS_S, self._end)

    def _end_if_gone(self) -> None:
        if self._status is not None and not self._open:
            self._gone.set()
            self._end()

    def _end(self) -> None:
        if self._last_words is not None:
            self._last_words.cancel()
        if not self.ended:
            self._ended.set()
            self._on_end()


def _find(command: str, environment: Mapping[str, str], cwd: Path | None) -> str:
    """The path of the program; it is looked up here, so that the error names the mistake."""
    if cwd is not None and not cwd.is_dir():
        raise SpawnError(f"cannot start {command!r}: its working directory {cwd} is not a folder")
    if os.sep in command:
        path = os.path.join(cwd or "", command)  # noqa: PTH118 - an absolute command stays as it is
        if shutil.which(path) is not None:
            return os.path.abspath(path)  # noqa: PTH100 - resolving a link could change the program's name
        reason = "it is not executable" if os.path.exists(path) else "there is no such file"  # noqa: PTH110 - a str
        raise SpawnError(f"cannot start {command!r}: {reason}")
    found = shutil.which(command, path=environment.get("PATH", os.defpath))
    if found is None:
        raise SpawnError(f"cannot start {command!r}: there is no such command in the PATH")
    return os.path.abspath(found)  # noqa: PTH100 - as above


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
