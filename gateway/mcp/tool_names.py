"""Tool names: `<server_slug>__<tool>`; the first `__` splits, so a slug never contains it."""

from typing import Final

SEPARATOR: Final = "__"


def join(server_slug: str, tool: str) -> str:
    """The name under which the gateway offers an upstream's tool."""
    return f"{server_slug}{SEPARATOR}{tool}"


def split(name: str) -> tuple[str, str] | None:
    """The server's slug and the upstream's own name of the tool, or None if the name has no prefix."""
    slug, separator, tool = name.partition(SEPARATOR)
    return (slug, tool) if separator and slug and tool else None
