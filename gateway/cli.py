"""The command `callscope`. It is imported in a moment, so that Ctrl-C ends it quietly from the start."""

from gateway.keyboard_interrupt import interrupted_quietly


def main() -> None:
    """Import the commands, which takes a while, and do what the command line says."""
    with interrupted_quietly():
        from gateway.commands import commands  # noqa: PLC0415 - see above
    commands()
