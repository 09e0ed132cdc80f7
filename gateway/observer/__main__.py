"""The observer's process: `python -m gateway.observer`, started by the supervisor."""

import os
from typing import Final

from gateway.config import load
from gateway.observer.observer_app import build
from gateway.process import Launch, run, serve, stop_requested

NICENESS: Final = 5
"""On a busy machine the relay goes first: a call never waits for telemetry."""


async def main(launch: Launch) -> None:
    """Serve until it is told to stop, then let the sinks process the rest of the journal."""
    os.nice(NICENESS)
    config = load(launch.config)
    async with stop_requested(launch.parent_pipe) as stop, build(config, stop=stop, config_path=launch.config) as app:
        await serve(app, launch.socket(), stop=stop, run_file=launch.run_file, grace_seconds=3)


if __name__ == "__main__":
    run(main)
