"""Runs the demo: start every process, let the members call, show what Callscope records, compare the counts."""

import asyncio
import contextlib
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.live import Live

from gateway.demo.counts import Counts, ObserverClient
from gateway.demo.display import RATE_WINDOW_S, DisplayData, comparison, instructions, live_table, log_line
from gateway.demo.environment import Environment, start_environment
from gateway.demo.fixtures import GUEST, MEMBERS
from gateway.errors import CallscopeError
from gateway.process import stop_requested, wait_at_most
from gateway.terminal.api_client import connect

SEED: Final = 7
TABLE_INTERVAL_S: Final = 1.0
LINE_INTERVAL_S: Final = 2.0
FIRST_CALL_S: Final = 60.0
"""Within this time a call must have ended; a busy machine needs some of it to start the servers."""
SETTLE_S: Final = 20.0
"""Seconds within which the last calls must arrive in the API and in the metrics."""


def run_demo(seconds: float | None, observer: str | None, otlp: str | None) -> int:
    """Run until Ctrl-C, or for `seconds` after the first call; 0 if all counts are equal, else 1.

    Raises:
        StartError: the gateway did not start.
    """
    return uvloop.run(_run(seconds, observer, otlp))


async def _run(seconds: float | None, observer: str | None, otlp: str | None) -> int:
    console = Console()

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)  # without line breaks in what is pasted

    async with stop_requested() as stop:
        with tempfile.TemporaryDirectory(prefix="callscope-demo-") as folder:
            say("starting MCP servers and the gateway …")
            async with start_environment(Path(folder), say, stop, observer=observer, otlp=otlp) as environment:
                say(instructions(environment, _command()))
                with connect(None, environment.observer, environment.jwt) as api:
                    client, began_s = ObserverClient(api), time.time()
                    clients = await _generate_traffic(environment, client, console, seconds, stop)
                    return await _compare(clients, client, began_s, console)


async def _generate_traffic(
    environment: Environment, client: ObserverClient, console: Console, seconds: float | None, stop: asyncio.Event
) -> Counts:
    """Let the members call until `stop` or for `seconds`; at the end no call is in flight."""
    from gateway.demo.traffic import Traffic  # noqa: PLC0415 - the SDK's import takes a second: the gateway starts first

    traffic = Traffic(SEED)

    async def stop_after(seconds: float) -> None:
        await wait_at_most(traffic.first_call, FIRST_CALL_S)
        await wait_at_most(stop, seconds)
        stop.set()

    async with asyncio.TaskGroup() as tasks:
        for member in MEMBERS:
            url = environment.workspace_url(member.workspace)
            tasks.create_task(traffic.simulate(member, url, environment.secrets[member.token_id], stop))
        if seconds is not None:
            tasks.create_task(stop_after(seconds))
        await _show(traffic.counts, client, console, stop)
    return traffic.counts


async def _show(counts: Counts, client: ObserverClient, console: Console, stop: asyncio.Event) -> None:
    """Show a live table in a terminal, and log lines elsewhere."""
    began_s = time.time()
    with Live(console=console, auto_refresh=False) if console.is_terminal else contextlib.nullcontext() as live:
        while not stop.is_set():
            await wait_at_most(stop, LINE_INTERVAL_S if live is None else TABLE_INTERVAL_S)
            recently_s = time.time() - RATE_WINDOW_S
            try:
                data = DisplayData(
                    members=await client.groups("token", began_s),
                    recent_members=await client.groups("token", recently_s),
                    tools=await client.groups("server,tool", began_s),
                    recent_tools=await client.groups("server,tool", recently_s),
                    counted=counts,
                )
            except CallscopeError as error:  # an observer that restarts answers again soon
                console.print(f"the analytics API does not answer: {error}", markup=False, highlight=False)
                continue
            if live is None:
                console.print(log_line(data), soft_wrap=True, highlight=False)
            else:
                live.update(live_table(data, console.height), refresh=True)


async def _compare(clients: Counts, client: ObserverClient, began_s: float, console: Console) -> int:
    """Wait until the API and the metrics have all calls, and print whether they agree with the clients."""
    console.print("counting the last calls …")
    deadline = time.monotonic() + SETTLE_S
    api, metrics, problem = Counts(), Counts(), ""
    while not clients == api == metrics and time.monotonic() < deadline:
        try:
            api = _without_guest(await client.counted_by_api(began_s))
            metrics = _without_guest(await client.counted_by_metrics())
        except CallscopeError as error:
            problem = f" ({error})"
        await asyncio.sleep(0.25)
    agree = clients == api == metrics
    console.print("Calls, counted by:", comparison(clients, api, metrics), sep="\n")
    verdict = "all three agree" if agree else f"they do NOT agree, see the rows marked 'differs'{problem}"
    console.print(f"{clients.total()} calls: {verdict}", highlight=False)
    return 0 if agree and clients else 1


def _command() -> str:
    """How to call this `callscope` again."""
    found = shutil.which(sys.argv[0])
    return shlex.join([str(Path(found).absolute())] if found else [sys.executable, "-m", "gateway"])


def _without_guest(counts: Counts) -> Counts:
    return Counts({key: calls for key, calls in counts.items() if key.token_id != GUEST.token_id})
