"""The demo profile without a container engine: the service's script, as a shell of the image runs it."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.observer.otlp_collector import Collector, collecting
from tests.stack.compose_file import services
from tests.stack.image import laid_out
from tests.system.gateway_process import eventually

DEMO: Final = services()["demo"]
PORT: Final = "9464"
TARGET: Final = {"targets": [f"demo:{PORT}"], "labels": {"job": "callscope-demo"}}
"""A job of its own: what it counts is not added to what the gateway beside it counts."""
OBSERVER: Final = re.compile(r"^Metrics: +(http://\S+)/metrics$", re.MULTILINE)


class Container:
    """The service's script in the image, with a folder for each of its mounts, and addresses of loopback."""

    def __init__(self, folder: Path, collector: Collector) -> None:
        [mount] = DEMO.mounts
        self.targets = folder / "targets"
        self.temporary = folder / "tmp"
        for place in (self.targets, self.temporary):
            place.mkdir()
        shell, flag = DEMO.tree["entrypoint"]
        script = DEMO.tree["command"][0].replace(f"{mount.target}/", f"{self.targets}/")
        script = script.replace(f"0.0.0.0:{PORT}", "127.0.0.1:0").replace("http://otel-collector:4318", collector.url)
        self._image = laid_out(folder / "image")
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._image.command(shell, flag, script),
                cwd="/",
                env=self._image.environment(TMPDIR=str(self.temporary)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def log(self) -> str:
        """What it said."""
        return self._log.read_text()

    def observer(self) -> str:
        """Where its observer is: once it says so, it is there."""
        [observer] = eventually(lambda: OBSERVER.findall(self.log()))
        return str(observer)

    def is_well(self, observer: str) -> bool:
        """What the service's health check says, asked at the observer's port."""
        _, *check = (word.replace(PORT, observer.rpartition(":")[2]) for word in DEMO.tree["healthcheck"]["test"])
        return self._image.run(*check).returncode == 0

    def stop(self) -> int:
        """As an engine does it: the exit status."""
        self._process.terminate()
        return self._process.wait(timeout=60)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture
def container(tmp_path: Path, collector: Collector) -> Iterator[Container]:
    started = Container(tmp_path, collector)
    try:
        yield started
    finally:
        started.stop()


def test_it_makes_traffic_for_all_signals_and_leaves_nothing_behind(container: Container, collector: Collector) -> None:
    observer = container.observer()
    assert yaml.safe_load((container.targets / "demo.yml").read_text()) == [TARGET]
    eventually(lambda: collector.traces and collector.logs)
    assert container.is_well(observer)

    assert container.stop() == 0
    assert "all three agree" in container.log()  # the members, the ledger and /metrics, on each call
    assert not container.is_well(observer)
    assert not list(container.targets.iterdir())
    assert not list(container.temporary.iterdir())
