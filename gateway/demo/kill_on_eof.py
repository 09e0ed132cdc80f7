"""Runs a command until standard input ends: `python -m gateway.demo.kill_on_eof COMMAND…`.

Whoever starts it holds the other end of that pipe, so the command is asked to stop however they end.
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

    def terminate_at_eof() -> None:
        while os.read(0, 4096):
            pass
        process.terminate()

    threading.Thread(target=terminate_at_eof, daemon=True).start()
    sys.exit(process.wait())


if __name__ == "__main__":
    main()
