"""Callscope with everything on, beside a bare pass-through and the upstream itself: alternating rounds, one run."""

import contextlib
import hashlib
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml
from rich.console import Console
from rich.table import Table

from bench import processes

BARE = "bare pass-through"
HERE = Path(__file__).parent.parent
SECRET = "mwt_bench_bench_bench_bench_bench_bench"


class Target(NamedTuple):
    """Something that answers `tools/call`, and the processes whose CPU it costs, by name."""

    name: str
    port: int
    path: str
    tool: str
    pids: dict[str, int]


class Round(NamedTuple):
    """One target's round."""

    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: dict[str, float]
    """Microseconds of CPU a call, by process."""


@contextlib.contextmanager
def targets(before: Path | None) -> Iterator[list[Target]]:
    """All that is compared, running; with `before`, the `callscope serve` of that checkout too."""
    upstream, passthrough = processes.free_port(), processes.free_port()
    with contextlib.ExitStack() as stack:
        run = stack.enter_context
        upstream_pid = run(processes.running("-m", "bench.upstream", str(upstream), port=upstream, core=processes.REST))
        passthrough_pid = run(
            processes.running(
                "-m", "bench.passthrough", str(passthrough), str(upstream), port=passthrough, core=processes.MEASURED
            )
        )
        compared = [
            Target("direct to the upstream", upstream, "/mcp", "echo", {"upstream": upstream_pid}),
            Target(BARE, passthrough, "/mcp", "echo", {"pass-through": passthrough_pid}),
            run(callscope("callscope", upstream, HERE)),
        ]
        if before is not None:
            compared.append(run(callscope("callscope before", upstream, before)))
        yield compared


@contextlib.contextmanager
def callscope(name: str, upstream: int, checkout: Path) -> Iterator[Target]:
    """`callscope serve` of a checkout, the relay alone on the measured core, the observer with the rest."""
    with tempfile.TemporaryDirectory(prefix="callscope-bench-", ignore_cleanup_errors=True) as folder:
        config, port = _configuration(Path(folder), upstream)
        run = Path(folder) / "data" / "run"
        with processes.running(
            "-m", "gateway", "serve", f"--config={config}", port=port, core=processes.REST, folder=checkout
        ):
            pids = {process: _pid(run / f"{process}.pid") for process in ("relay-0", "observer")}
            processes.pin(pids["relay-0"], processes.MEASURED)
            yield Target(name, port, "/ws/bench", "up__echo", {"relay": pids["relay-0"], "observer": pids["observer"]})


def _configuration(folder: Path, upstream: int) -> tuple[Path, int]:
    """A configuration file, and the port of its relay."""
    port, observer = processes.free_port(), processes.free_port()
    config = folder / "callscope.yaml"
    token = {"id": "bench", "name": "Bench", "sha256": hashlib.sha256(SECRET.encode()).hexdigest()}
    workspace = {
        "rate_limit": None,
        "servers": {"up": {"url": f"http://127.0.0.1:{upstream}/mcp"}},
        "tokens": [token],
    }
    settings = {
        "listen": f"127.0.0.1:{port}",
        "observer": {"listen": f"127.0.0.1:{observer}"},
        "data_dir": str(folder / "data"),
        "api": {"jwt": {"secret": SECRET}},
        "workspaces": {"bench": workspace},
    }
    config.write_text(yaml.safe_dump(settings))
    return config, port


def _pid(path: Path) -> int:
    processes.until(path.exists)
    return int(path.read_text())


def measure(target: Target, *, connections: int, seconds: float) -> Round:
    """One round; the observer's share is taken when it has caught up."""
    before = {name: processes.cpu_seconds(pid) for name, pid in target.pids.items()}
    answer = processes.load(target.port, target.path, target.tool, SECRET, connections=connections, seconds=seconds)
    if answer["failed"]:
        raise RuntimeError(f"{target.name}: {answer['failed']} of {answer['calls']} calls failed")
    processes.settle(list(target.pids.values()))
    spent = {name: processes.cpu_seconds(pid) - before[name] for name, pid in target.pids.items()}
    cpu_us = {name: value / answer["calls"] * 1e6 for name, value in spent.items()}
    return Round(answer["per_second"], answer["p50_ms"], answer["p99_ms"], cpu_us)


def run(console: Console, *, rounds: int, seconds: float, before: Path | None) -> None:
    """Print the table and the ratios: at 16 connections, then the latency that one connection sees."""
    with targets(before) as compared:
        for connections in (16, 1):
            results: dict[str, list[Round]] = {target.name: [] for target in compared}
            for _ in range(rounds):
                compared.reverse()  # whoever comes first in one round comes last in the next
                for target in compared:
                    results[target.name].append(measure(target, connections=connections, seconds=seconds))
            console.print(_table(results, connections))
            console.print(_verdict(results))


def _table(results: dict[str, list[Round]], connections: int) -> Table:
    table = Table(title=f"{connections} connection{'s' if connections > 1 else ''}, medians of the rounds")
    for column in ("", "calls/s", "p50 ms", "p99 ms", "CPU µs a call"):
        table.add_column(column, justify="right" if column else "left")
    for name, rounds in results.items():
        cpu = "  ".join(
            f"{process} {statistics.median(r.cpu_us[process] for r in rounds):.0f}" for process in rounds[0].cpu_us
        )
        table.add_row(
            name,
            f"{statistics.median(r.per_second for r in rounds):,.0f}",
            f"{statistics.median(r.p50_ms for r in rounds):.2f}",
            f"{statistics.median(r.p99_ms for r in rounds):.2f}",
            cpu,
        )
    return table


def _verdict(results: dict[str, list[Round]]) -> str:
    """Ratios round by round, as neighbours share the machine's mood; their median."""
    own, bare = results["callscope"], results[BARE]
    speed = _median_ratio(own, bare)
    cost = statistics.median(b.cpu_us["pass-through"] / o.cpu_us["relay"] for o, b in zip(own, bare, strict=True))
    added = statistics.median(o.p50_ms - b.p50_ms for o, b in zip(own, bare, strict=True))
    said = (
        f"callscope against the bare pass-through: {speed:.0%} of its throughput; a call's CPU there is {cost:.0%} of "
        f"the relay's; {added:+.2f} ms at the median"
    )
    if "callscope before" in results:
        before = results["callscope before"]
        cpu = statistics.median(o.cpu_us["relay"] / b.cpu_us["relay"] for o, b in zip(own, before, strict=True))
        said += (
            f"\ncallscope against callscope before: {_median_ratio(own, before):.3f} of its calls/s, {cpu:.3f} of the "
            "relay's CPU a call"
        )
    return said


def _median_ratio(own: list[Round], other: list[Round]) -> float:
    return statistics.median(o.per_second / b.per_second for o, b in zip(own, other, strict=True))
