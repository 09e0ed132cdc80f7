"""What this version was built with, for other programs: Grafana dashboards and Prometheus rules, to be written out.

A wheel carries them in `gateway/_bundled/`; in a checkout they stand where they are made.
"""

from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from gateway.errors import CallscopeError

Kind = Literal["dashboards", "rules"]

_CHECKOUT: Final = Path(__file__).parent.parent
_SOURCES: Final[dict[Kind, tuple[str, tuple[str, ...]]]] = {
    "dashboards": ("dashboards/generated", (".json",)),
    "rules": ("prometheus/rules", (".yml", ".yaml")),
}
"""The folder in a checkout, which pyproject.toml names as well, and what the files' names end in."""


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


def export(kind: Kind, folder: Path) -> list[Path]:
    """Write the files of a kind into `folder`, which is made if it is not there: their paths.

    Raises:
        CallscopeError: this installation has none, or `folder` cannot be written.
    """
    found = bundled(kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name, content in found.items():
            path = folder / name
            path.write_bytes(content)
            written.append(path)
    except OSError as error:
        raise CallscopeError(f"{error.filename or folder}: {kind} cannot be written: {error.strerror}") from error
    return written
