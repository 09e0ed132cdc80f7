"""promtool of two generations, amtool and Alertmanager; or a skip that says how to get them."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import httpx
import pytest

from stack import build
from tests.backends import installed, native
from tests.system.gateway_process import TLS, eventually

TIMEOUT_S: Final = 120.0


class Promtool(NamedTuple):
    """One of them: Prometheus 2 of the distribution, or Prometheus 3 as the stack has it."""

    generation: Literal[2, 3]

    @property
    def path(self) -> Path:
        """Where it is; the test is skipped if it is nowhere."""
        return installed("promtool") if self.generation == 2 else native(build.PROMETHEUS, "promtool")

    def ask(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run it, whatever it says."""
        return asked(self.path, *arguments)

    def run(self, *arguments: str | Path) -> None:
        """Run it, and expect that it has nothing to find fault with."""
        done = self.ask(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr


PROMTOOLS: Final = [
    pytest.param(Promtool(2), id="prometheus-2", marks=pytest.mark.backend),
    pytest.param(Promtool(3), id="prometheus-3", marks=pytest.mark.backend),
]
"""For `parametrize`."""


def one_promtool() -> Promtool:
    """Either of them, where it does not matter which: the one that is quicker, if it is there."""
    return Promtool(2) if build.built(build.PROMETHEUS, build.cache(os.environ)) is None else Promtool(3)


def asked(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What a program says."""
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=TIMEOUT_S)


@contextlib.contextmanager
def alertmanager(config: Path, folder: Path) -> Iterator[str]:
    """A running Alertmanager: its address."""
    program = installed("prometheus-alertmanager")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = (program, f"--config.file={config}", f"--storage.path={folder}", f"--web.listen-address={address}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--cluster.listen-address="], stdout=log, stderr=log)
    try:
        url = f"http://{address}"
        eventually(lambda: httpx.get(f"{url}/-/ready", verify=TLS).is_success)
        yield url
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
