"""What this version was built with, for other programs: dashboards, rules, and the runbook of their alerts.

A wheel carries them in `gateway/_bundled/`; in a checkout they stand where they are made.
"""

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from gateway.errors import CallscopeError

Kind = Literal["dashboards", "rules", "runbook"]

RUNBOOK: Final = "docs/runbook.md"
"""Where every alert's `runbook_url` leads, before the name of its section."""

_CHECKOUT: Final = Path(__file__).parent.parent
_SOURCES: Final[dict[Kind, tuple[str, tuple[str, ...]]]] = {
    "dashboards": ("dashboards/generated", (".json",)),
    "rules": ("prometheus/rules", (".yml", ".yaml")),
    "runbook": ("docs", ("runbook.md",)),
}
"""The folder in a checkout, which pyproject.toml names as well, and what the files' names end in."""

_ADDRESS: Final = re.compile(r"https?://[^\s#\"'<>\\^`{|}\x00-\x1f\x7f-\U0010ffff]+")
"""RFC 3986 without a fragment: it needs no quotes in YAML, is no template of Prometheus', and can be followed by #…"""


def bundled(kind: Kind) -> dict[str, bytes]:
    """The files of a kind, by name.

    Raises:
        CallscopeError: this installation has none.
    """
    source, suffixes = _SOURCES[kind]
    for folder in (files("gateway") / "_bundled" / kind, _CHECKOUT / source):
        if folder.is_dir():
            found = {item.name: item.read_bytes() for item in folder.iterdir() if item.name.endswith(suffixes)}
            if found:
                return dict(sorted(found.items()))
    raise CallscopeError(f"this installation has no {kind}: it was built without {source}")


def with_runbook_at(address: str, rules: Mapping[str, bytes]) -> dict[str, bytes]:
    """The rules with `address` in the place of `RUNBOOK`, and byte for byte as they were otherwise.

    Raises:
        CallscopeError: it is no address that the name of a section can follow.
    """
    if not _ADDRESS.fullmatch(address):
        raise CallscopeError(
            f"--runbook: {address!r} is no address of a page, for instance https://wiki.example.com/callscope: "
            "'#' and the alert's name in lower case are put behind it"
        )
    return {name: content.replace(RUNBOOK.encode(), address.encode()) for name, content in rules.items()}


def write(what: Kind, contents: Mapping[str, bytes], folder: Path) -> list[Path]:
    """Write files into `folder`, which is made if it is not there: their paths.

    Raises:
        CallscopeError: `folder` cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, content in contents.items():
            path = folder / name
            path.write_bytes(content)
            written.append(path)
    except OSError as error:
        raise CallscopeError(f"{error.filename or folder}: {what} cannot be written: {error.strerror}") from error
    return written
