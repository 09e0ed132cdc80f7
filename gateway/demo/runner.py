"""The demo: start every process, let the members call, show what Callscope recorded, compare the counts."""

import asyncio
import contextlib
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx
import uvloop
from rich.console import Console
from rich.live import Live

from gateway.demo.counts import Counts
from gateway.demo.display import RATE_WINDOW_S, Snapshot, comparison, instructions, line, table
from gateway.demo.environment import BackEnds, Environment, start_environment
from gateway.demo.fixtures import GUEST, MEMBERS, WORKSPACES
from gateway.demo.observer_client import ObserverClient
from gateway.process import stop_requested

SEED: Final = 7
LOOK_S: Final = 1.0
LINE_S: Final = 2.0
SETTLE_S: Final = 20.0
"""Seconds that the last calls have to arrive in the API and in the counters."""


def run(seconds: float | None, back_ends: BackEnds) -> int:
    """Run until Ctrl-C or for `seconds` of traffic; 0 if everything was counted alike, else 1.

    Raises:
        StartError: the gateway did not start.
    """
    return uvloop.run(_run(seconds, Console(), back_ends))


async def _run(seconds: float | None, console: Console, back_ends: BackEnds) -> int:
    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)  # what is pasted must not be broken

    async with stop_requested() as stop:
        with tempfile.TemporaryDirectory(prefix="callscope-demo-") as folder:
            say("starting MCP servers and the gateway …")
            async with (
                start_environment(Path(folder), say, stop, back_ends) as environment,
                httpx.AsyncClient(timeout=10) as http,
            ):
                say(instructions(environment, _command()))
                show = _Demo(environment, ObserverClient(http, environment, list(WORKSPACES)), console)
                return await show.compare(await show.generate_traffic(seconds, stop))


class _Demo:
    """One performance on a environment that stands."""

    def __init__(self, environment: Environment, observer: ObserverClient, console: Console) -> None:
        self._environment = environment
        self._observer = observer
        self._console = console
        self._began_s = time.time()

    async def generate_traffic(self, seconds: float | None, stop: asyncio.Event) -> Counts:
        """Let the members work until `stop` or for `seconds`, and show it; in the end no call is under way."""
        from gateway.demo.traffic import Traffic  # noqa: PLC0415 - its SDK takes a second to import: the gateway first

        traffic = Traffic(SEED)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, stop.set)
        async with asyncio.TaskGroup() as tasks:
            for member in MEMBERS:
                url = self._environment.workspace_url(member.workspace)
                tasks.create_task(traffic.simulate(member, url, self._environment.secrets[member.token_id], stop))
            await self._watch(traffic.counts, stop)
        return traffic.counts

    async def compare(self, clients: Counts) -> int:
        """Wait until the API and the counters have all calls, and say whether they agree with the clients."""
        self._console.print("the last calls are counted …")
        deadline = time.monotonic() + SETTLE_S
        api, metrics, silence = Counts(), Counts(), ""
        while not clients == api == metrics and time.monotonic() < deadline:
            try:
                api = _of_members(await self._observer.counted_by_api(self._began_s))
                metrics = _of_members(await self._observer.counted_by_metrics())
            except (httpx.HTTPError, ValueError) as error:
                silence = f" ({error})"
            await asyncio.sleep(0.25)
        agree = clients == api == metrics
        self._console.print(comparison(clients, api, metrics))
        verdict = "all three agree" if agree else f"they do NOT agree, see the rows marked 'differs'{silence}"
        self._console.print(f"{clients.total()} calls: {verdict}", highlight=False)
        return 0 if agree and clients else 1

    async def _watch(self, counts: Counts, stop: asyncio.Event) -> None:
        """A table that lives in a terminal; elsewhere a line now and then."""
        console = self._console
        pause = LOOK_S if console.is_terminal else LINE_S
        with Live(console=console, auto_refresh=False) if console.is_terminal else contextlib.nullcontext() as live:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await stop.wait()
                try:
                    snapshot = await self._look(counts)
                except httpx.HTTPError as error:  # an observer that is started again is back in a moment
                    console.print(f"the analytics API does not answer: {error}", highlight=False)
                    continue
                if live is not None:
                    live.update(table(snapshot, console.size), refresh=True)
                else:
                    console.print(line(snapshot), soft_wrap=True, highlight=False)

    async def _look(self, counts: Counts) -> Snapshot:
        recently_s = time.time() - RATE_WINDOW_S
        return Snapshot(
            members=await self._observer.groups("token", self._began_s),
            recent_members=await self._observer.groups("token", recently_s),
            tools=await self._observer.groups("server,tool", self._began_s),
            recent_tools=await self._observer.groups("server,tool", recently_s),
            counted=counts,
        )


def _command() -> str:
    """How this command was called, for whoever calls it again."""
    found = shutil.which(sys.argv[0])
    return shlex.join([str(Path(found).absolute())] if found else [sys.executable, "-m", "gateway"])


def _of_members(counts: Counts) -> Counts:
    """Without the guest's calls: no client of the demo made them."""
    return Counts({outcome: calls for outcome, calls in counts.items() if outcome.token_id != GUEST.token_id})
