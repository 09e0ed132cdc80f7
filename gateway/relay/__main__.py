"""The relay's process: `python -m gateway.relay`, started by the supervisor."""

import gc

from gateway.config import load
from gateway.http1.server import HttpProtocol
from gateway.journal import Writer
from gateway.process import Launch, run, serve, stop_requested
from gateway.relay.relay_app import Relay
from gateway.relay.signing_key import load_key


async def main(launch: Launch) -> None:
    """Serve until a stop is requested. Then finish the requests in progress, and close the journal."""
    config = load(launch.config)
    journal = Writer(
        config.data_dir / "journal",
        launch.name,
        segment_bytes=config.journal.segment_bytes,
        segment_age=config.journal.segment_age,
        fsync=config.journal.fsync,
    )
    try:
        relay = Relay(config, journal, load_key(config.data_dir / "relay.key"))
        async with stop_requested(launch.parent_pipe) as stop, relay.running(launch.config, stop):
            sock = launch.socket()
            # Calls make few cycles, and what is loaded by now stays: scanning it again would pause every call.
            gc.collect()
            gc.freeze()
            gc.set_threshold(10_000, 20, 20)
            await serve(relay, sock, stop=stop, run_file=launch.run_file, grace_seconds=30, http=HttpProtocol)
    finally:
        journal.close()


if __name__ == "__main__":
    run(main)
