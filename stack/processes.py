"""The stack as native processes on 127.0.0.1, from the configuration files that the containers have.

Prometheus 3, Alertmanager, Loki and an OpenTelemetry Collector, on free ports, in a folder that is thrown away. Tempo
and Grafana come as containers alone: traces go into a file. Every process ends with this one.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from stack import build

ROOT: Final = Path(__file__).parent.parent
HOST: Final = "127.0.0.1"
ALERTMANAGER: Final = "prometheus-alertmanager"
"""Debian's name for it."""
Command = tuple[str | Path, ...]
READY_S: Final = 60.0
END_S: Final = 20.0


class NotBuiltError(Exception):
    """What the stack needs is not there; the message says which make target brings it."""


class NotReadyError(Exception):
    """A process ended, or did not answer in time; the message has its log's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where the binaries are."""

    prometheus: Path
    loki: Path
    otelcol: Path
    alertmanager: Path

    @classmethod
    def found(cls, environ: Mapping[str, str]) -> "Programs":
        """Those that were built, and Debian's.

        Raises:
            NotBuiltError: at least one is missing.
        """
        kept = build.cache(environ)
        folders = {module.name: build.built(module, kept) for module in build.MODULES}
        prometheus, loki, collector = folders["prometheus"], folders["loki"], folders["collector"]
        alertmanager = shutil.which(ALERTMANAGER)
        if prometheus is None or loki is None or collector is None:
            missing = ", ".join(name for name, folder in folders.items() if folder is None)
            raise NotBuiltError(
                f"{missing}: not built for these sources: `make stack-tools` does that, in 10 to 20 minutes"
            )
        if alertmanager is None:
            raise NotBuiltError(f"no {ALERTMANAGER} on the PATH: `make test-tools` installs it")
        return cls(
            prometheus=prometheus / "prometheus",
            loki=loki / "loki",
            otelcol=collector / "otelcol",
            alertmanager=Path(alertmanager),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """What runs, by its address."""

    prometheus: str
    """`http://host:port`, as all of them."""
    alertmanager: str
    loki: str
    otlp: str
    """Where a gateway sends traces and log records: `otlp.endpoint`."""
    observer: str
    """`host:port` where Prometheus looks for a gateway's observer; nothing of the stack listens there."""
    traces: Path
    """The Collector's traces: one OTLP JSON a line."""
    folder: Path
    """Logs, data."""


@contextlib.contextmanager
def running(folder: Path, programs: Programs) -> Iterator[Stack]:
    """Start everything in `folder`, wait until it serves, and end it when left.

    Raises:
        NotReadyError: a process did not become ready.
    """
    names = ("prometheus", "alertmanager", "loki", "loki_grpc", "otlp", "health", "collector", "observer")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    at = {name: f"{HOST}:{port}" for name, port in ports.items()}
    stack = Stack(
        prometheus=f"http://{at['prometheus']}",
        alertmanager=f"http://{at['alertmanager']}",
        loki=f"http://{at['loki']}",
        otlp=f"http://{at['otlp']}",
        observer=at["observer"],
        traces=folder / "traces.jsonl",
        folder=folder,
    )
    with contextlib.ExitStack() as started:

        def run(name: str, command: Command, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
            return started.enter_context(_process(folder / f"{name}.log", command, environ or {}))

        processes = {
            "loki": run("loki", _loki(folder, programs.loki), _loki_environ(folder, ports)),
            "alertmanager": run("alertmanager", _alertmanager(folder, programs.alertmanager, at["alertmanager"])),
            "otelcol": run("otelcol", _collector(programs.otelcol), _collector_environ(folder, ports, stack)),
            "prometheus": run("prometheus", _prometheus(folder, programs.prometheus, at)),
        }
        looks = {
            "loki": lambda: _answers(f"{stack.loki}/loki/api/v1/labels"),  # it is ready before it can be asked
            "alertmanager": lambda: _answers(f"{stack.alertmanager}/-/ready"),
            "otelcol": lambda: _answers(f"http://{at['health']}/"),
            "prometheus": lambda: _answers(f"{stack.prometheus}/-/ready"),
        }
        for name, look in looks.items():
            _wait(name, processes[name], folder / f"{name}.log", look)
        yield stack


def demo(stack: Stack, *options: str) -> list[str]:
    """The command that makes traffic for the stack."""
    return [sys.executable, "-m", "gateway", "demo", f"--observer={stack.observer}", f"--otlp={stack.otlp}", *options]


def _loki(folder: Path, binary: Path) -> Command:
    (folder / "loki").mkdir()
    return (binary, f"-config.file={ROOT / 'loki' / 'config.yaml'}", "-config.expand-env=true")


def _loki_environ(folder: Path, ports: Mapping[str, int]) -> dict[str, str]:
    return {
        "LOKI_HTTP_ADDRESS": HOST,
        "LOKI_HTTP_PORT": str(ports["loki"]),
        "LOKI_GRPC_PORT": str(ports["loki_grpc"]),
        "LOKI_DATA": str(folder / "loki"),
    }


def _alertmanager(folder: Path, binary: Path, address: str) -> Command:
    return (
        binary,
        f"--config.file={ROOT / 'alertmanager' / 'config.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    )


def _collector(binary: Path) -> Command:
    base, native = ROOT / "otel-collector" / "config.yaml", ROOT / "stack" / "native.yaml"
    return (binary, f"--config={base}", f"--config={native}")


def _collector_environ(folder: Path, ports: Mapping[str, int], stack: Stack) -> dict[str, str]:
    return {
        "OTELCOL_HOST": HOST,
        "OTELCOL_HTTP_PORT": str(ports["otlp"]),
        "OTELCOL_HEALTH_PORT": str(ports["health"]),
        "OTELCOL_METRICS_PORT": str(ports["collector"]),
        "OTELCOL_DATA": str(folder / "otelcol"),
        "OTELCOL_TRACES": str(stack.traces),
        "LOKI_OTLP_URL": f"{stack.loki}/otlp",
    }


def _prometheus(folder: Path, binary: Path, at: Mapping[str, str]) -> Command:
    """The configuration, its rules, and targets of this run's addresses, in a folder: file names in it are relative."""
    home = folder / "prometheus"
    targets = home / "targets"
    targets.mkdir(parents=True)
    (home / "demo-targets").mkdir()  # of compose.yaml's demo: there is none here
    (home / "prometheus.yml").symlink_to(ROOT / "prometheus" / "prometheus.yml")
    (home / "rules").symlink_to(ROOT / "prometheus" / "rules")
    jobs = {"callscope": "observer", "otel-collector": "collector"}
    for job in ("callscope", "otel-collector", "prometheus", "alertmanager", "loki"):
        (targets / f"{job}.yml").write_text(f'- targets: ["{at[jobs.get(job, job)]}"]\n')
    return (
        binary,
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={at['prometheus']}",
        "--enable-feature=exemplar-storage",
    )


def _free_ports(count: int) -> list[int]:
    """Ports that nobody has now; all at once, so that they differ."""
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def leashed(*command: str | Path) -> Command:
    """The command, which is asked to end when its standard input does: when whoever started it has ended, however."""
    return (sys.executable, "-m", "gateway.demo.kill_on_eof", *command)


@contextlib.contextmanager
def _process(log: Path, command: Command, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process on a leash."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            leashed(*command),
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            cwd=ROOT,
            env={**os.environ, **environ},
            start_new_session=True,  # Ctrl-C is for whoever holds the leash
        )
    try:
        yield process
    finally:
        try:
            process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(url: str) -> bool:
    return httpx.get(url, timeout=5).is_success


def _wait(name: str, process: subprocess.Popen[bytes], log: Path, look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if look():
                return
        time.sleep(0.1)
    problem = f"does not answer within {READY_S:.0f} s" if process.poll() is None else "ended"
    raise NotReadyError(f"{name} {problem}; its log ends:\n{log.read_text(errors='replace')[-2000:]}")
