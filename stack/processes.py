"""The stack as native processes on free ports of 127.0.0.1, with the containers' configuration files.

Prometheus 3, Alertmanager and an OpenTelemetry Collector, and Loki if the machine has one. There is no native Tempo and
no native Grafana: traces and log records are written to files. Every process ends with this one.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from stack import build

ROOT: Final = Path(__file__).parent.parent
HOST: Final = "127.0.0.1"
ALERTMANAGER: Final = "prometheus-alertmanager"
"""Debian's name for it."""
NO_LOKI: Final = (
    "no Loki here, so LogQL is not run: put a `loki` on the PATH, or name one in CALLSCOPE_LOKI. "
    "Its license is the AGPL: no make target builds it, and CI runs without it"
)
Command = tuple[str | Path, ...]
READY_S: Final = 60.0
END_S: Final = 20.0


class NotBuiltError(Exception):
    """A program of the stack is not there; the message says how to get it."""


class NotReadyError(Exception):
    """A process ended, or did not answer in time; the message has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where the programs are."""

    prometheus: Path
    otelcol: Path
    alertmanager: Path
    loki: Path | None
    """None if the machine has none: the stack runs without it."""

    @classmethod
    def found(cls, environ: Mapping[str, str]) -> "Programs":
        """Those that were built, Debian's Alertmanager, and the machine's Loki.

        Raises:
            NotBuiltError: one is missing that the stack cannot do without.
        """
        kept = build.cache(environ)
        folders = {module.name: build.built(module, kept) for module in build.MODULES}
        prometheus, collector = folders["prometheus"], folders["collector"]
        alertmanager = shutil.which(ALERTMANAGER)
        if prometheus is None or collector is None:
            missing = ", ".join(name for name, folder in folders.items() if folder is None)
            raise NotBuiltError(f"{missing}: not built for these sources: `make stack-tools` builds them (with Go)")
        if alertmanager is None:
            raise NotBuiltError(f"no {ALERTMANAGER} on the PATH: `make test-tools` installs it")
        return cls(
            prometheus=prometheus / "prometheus",
            otelcol=collector / "otelcol",
            alertmanager=Path(alertmanager),
            loki=loki(environ),
        )


def loki(environ: Mapping[str, str]) -> Path | None:
    """The machine's own Loki: `CALLSCOPE_LOKI`, or `loki` on the PATH.

    Raises:
        NotBuiltError: `CALLSCOPE_LOKI` names a file that is not there.
    """
    named = environ.get("CALLSCOPE_LOKI")
    if named and not Path(named).is_file():
        raise NotBuiltError(f"CALLSCOPE_LOKI names {named}, and there is no such file")
    found = named or shutil.which("loki")
    return Path(found) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The addresses of a running stack."""

    prometheus: str
    """`http://host:port`, as all of them."""
    alertmanager: str
    loki: str | None
    """None if the machine has no Loki."""
    otlp: str
    """Where a gateway sends traces and log records: its `otlp.endpoint`."""
    observer: str
    """`host:port` that Prometheus scrapes; a gateway's observer has to listen there."""
    traces: Path
    """What the Collector exports, one OTLP JSON a line."""
    logs: Path
    """The same, of log records."""
    folder: Path
    """Data, and the programs' own logs."""


@contextlib.contextmanager
def running(folder: Path, programs: Programs, *, otlp_logs: str | None = None) -> Iterator[Stack]:
    """Start everything in `folder`, wait until it serves, and end it when left.

    Where there is no Loki, the Collector sends log records to `otlp_logs`, an OTLP endpoint over HTTP, if it is given.

    Raises:
        NotReadyError: a process did not become ready.
    """
    names = ("prometheus", "alertmanager", "loki", "loki_grpc", "otlp", "health", "collector", "observer")
    ports = dict(zip(names, _free_ports(len(names)), strict=True))
    at = {name: f"{HOST}:{port}" for name, port in ports.items()}
    stack = Stack(
        prometheus=f"http://{at['prometheus']}",
        alertmanager=f"http://{at['alertmanager']}",
        loki=f"http://{at['loki']}" if programs.loki else None,
        otlp=f"http://{at['otlp']}",
        observer=at["observer"],
        traces=folder / "traces.jsonl",
        logs=folder / "logs.jsonl",
        folder=folder,
    )
    if stack.loki:
        otlp_logs = f"{stack.loki}/otlp"
    with contextlib.ExitStack() as started:

        def run(name: str, command: Command, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
            return started.enter_context(_process(folder / f"{name}.log", command, environ or {}))

        processes = {
            "alertmanager": run("alertmanager", _alertmanager(folder, programs.alertmanager, at["alertmanager"])),
            "otelcol": run(
                "otelcol",
                _collector(programs.otelcol, to_otlp=otlp_logs is not None),
                _collector_environ(folder, ports, stack, otlp_logs),
            ),
            "prometheus": run("prometheus", _prometheus(folder, programs, at)),
        }
        health = {
            "alertmanager": f"{stack.alertmanager}/-/ready",
            "otelcol": f"http://{at['health']}/",
            "prometheus": f"{stack.prometheus}/-/ready",
        }
        if programs.loki:
            processes["loki"] = run("loki", _loki(folder, programs.loki), _loki_environ(folder, ports))
            health["loki"] = f"{stack.loki}/loki/api/v1/labels"  # /ready answers before queries do
        for name, url in health.items():
            _wait(name, processes[name], folder / f"{name}.log", url)
        yield stack


def demo(stack: Stack, *options: str) -> list[str]:
    """The command of a demo whose telemetry the stack receives."""
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


def _collector(binary: Path, *, to_otlp: bool) -> Command:
    files = [ROOT / "otel-collector" / "config.yaml", ROOT / "stack" / "native.yaml"]
    if to_otlp:
        files.append(ROOT / "stack" / "native-loki.yaml")
    return (binary, *(f"--config={file}" for file in files))


def _collector_environ(folder: Path, ports: Mapping[str, int], stack: Stack, otlp_logs: str | None) -> dict[str, str]:
    return {
        "OTELCOL_HOST": HOST,
        "OTELCOL_HTTP_PORT": str(ports["otlp"]),
        "OTELCOL_HEALTH_PORT": str(ports["health"]),
        "OTELCOL_METRICS_PORT": str(ports["collector"]),
        "OTELCOL_DATA": str(folder / "otelcol"),
        "OTELCOL_TRACES": str(stack.traces),
        "OTELCOL_LOGS": str(stack.logs),
        **({"LOKI_OTLP_URL": otlp_logs} if otlp_logs else {}),
    }


def _prometheus(folder: Path, programs: Programs, at: Mapping[str, str]) -> Command:
    """Its command, and a folder with its configuration, rules and targets: file names in them are relative."""
    home = folder / "prometheus"
    targets = home / "targets"
    targets.mkdir(parents=True)
    (home / "demo-targets").mkdir()  # for the demo of compose.yaml; empty here
    (home / "prometheus.yml").symlink_to(ROOT / "prometheus" / "prometheus.yml")
    (home / "rules").symlink_to(ROOT / "prometheus" / "rules")
    jobs = {"callscope": "observer", "otel-collector": "collector"}
    for job in ("callscope", "otel-collector", "prometheus", "alertmanager", *(["loki"] if programs.loki else [])):
        (targets / f"{job}.yml").write_text(f'- targets: ["{at[jobs.get(job, job)]}"]\n')
    return (
        programs.prometheus,
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={at['prometheus']}",
        "--enable-feature=exemplar-storage",
    )


def _free_ports(count: int) -> list[int]:
    """Ports that are free now. They are bound at the same time, so that they differ."""
    with contextlib.ExitStack() as open_ones:
        sockets = [open_ones.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]


def ends_with_stdin(*command: str | Path) -> Command:
    """The command, ended when its standard input closes: when the process that started it ends, in whatever way."""
    return (sys.executable, "-m", "gateway.demo.kill_on_eof", *command)


@contextlib.contextmanager
def _process(log: Path, command: Command, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with this one."""
    with log.open("wb") as said:
        process = subprocess.Popen(
            ends_with_stdin(*command),
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            cwd=ROOT,
            env={**os.environ, **environ},
            start_new_session=True,  # Ctrl-C reaches this process only, which then ends the others in order
        )
    try:
        yield process
    finally:
        try:
            process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(name: str, process: subprocess.Popen[bytes], log: Path, url: str) -> None:
    deadline = time.monotonic() + READY_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5).is_success:
                return
        time.sleep(0.1)
    problem = f"does not answer within {READY_S:.0f} s" if process.poll() is None else "ended"
    raise NotReadyError(f"{name} {problem}; its log ends:\n{log.read_text(errors='replace')[-2000:]}")
