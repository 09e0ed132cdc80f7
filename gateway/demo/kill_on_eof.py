"""Runs a command for as long as standard input is open: `python -m gateway.demo.kill_on_eof COMMAND…`.

Whoever started it holds the other end of that pipe, so that however they end, the command is asked to stop.
"""

import os
import signal
import subprocess
import sys
import threading


def main() -> None:
    """Pass the end of standard input, and SIGTERM, on as SIGTERM; end with the command's status."""
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)  # noqa: S603 - the caller's own command
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())

    def wait_for_the_end() -> None:
        while os.read(0, 4096):
            pass
        process.terminate()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    sys.exit(process.wait())


if __name__ == "__main__":
    main()
