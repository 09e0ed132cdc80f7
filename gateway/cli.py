"""The command `callscope`: it imports little, so that Ctrl-C ends it without a traceback from the first moment."""

import os
import signal


def main() -> None:
    """Import the commands, which takes a while, and run the one that the command line names."""
    # Ctrl-C during an import would print a traceback, or get lost in an extension module. Nothing is open yet that
    # would have to be closed, so the process ends at once; `Commands` restores Python's handler for the command.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores the signal
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    from gateway.commands import commands  # noqa: PLC0415 - see above

    commands()
