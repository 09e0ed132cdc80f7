"""A command on a leash ends when whoever holds the leash does."""

import signal
import subprocess
import sys
from collections.abc import Sequence

COMMAND = "import signal, sys, time; print('on', flush=True); signal.pause()"
POLITE = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); {COMMAND}"


def leashed(command: Sequence[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.demo.leash", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    return process


def test_the_end_of_standard_input_is_the_commands_sigterm_and_its_status_the_leashs() -> None:
    with leashed([sys.executable, "-c", POLITE]) as process:
        process.communicate(timeout=15)

    assert process.returncode == 7


def test_sigterm_is_passed_on() -> None:
    with leashed([sys.executable, "-c", POLITE]) as process:
        process.send_signal(signal.SIGTERM)

        assert process.wait(timeout=15) == 7
