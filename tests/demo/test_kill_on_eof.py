"""A command on a leash ends when whoever holds the leash does."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

COMMAND = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("on", flush=True)
for _ in range(3000):
    time.sleep(0.01)
"""


@contextlib.contextmanager
def leashed() -> Iterator[subprocess.Popen[bytes]]:
    """The command on its leash, once it runs."""
    arguments = ("-m", "gateway.demo.kill_on_eof", sys.executable, "-c", COMMAND)
    with subprocess.Popen([sys.executable, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"on\n"
            yield process
        finally:
            process.kill()


def test_the_end_of_standard_input_is_the_commands_sigterm_and_its_status_the_leashs() -> None:
    with leashed() as process:
        process.communicate(timeout=60)

    assert process.returncode == 7


def test_sigterm_is_passed_on() -> None:
    with leashed() as process:
        process.send_signal(signal.SIGTERM)

        assert process.wait(timeout=60) == 7
