"""Real MCP servers for the whole run, and gateways in front of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.gateway_process import STDIO, Gateway, running, upstreams


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, dict[str, Any]]]:
    """One server of each kind. Nobody listens where `dead` should be; `hasty` is `modern`, given no time."""
    with upstreams("modern", "legacy", "misbehaving") as urls:
        yield {
            "modern": {"url": urls["modern"]},
            "legacy": {"url": urls["legacy"]},
            "local": STDIO,
            "broken": {"url": urls["misbehaving"]},
            "dead": {"url": "http://127.0.0.1:1/mcp"},
            "hasty": {"url": urls["modern"], "timeout": 1.0},
        }


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, servers: dict[str, dict[str, Any]]) -> Iterator[Gateway]:
    """A gateway in front of all of them; `gone` may not call any more, and `hurried` only once."""
    folder: Path = tmp_path_factory.mktemp("gateway")
    members = {
        "alice": {},
        "bob": {},
        "gone": {"expires_at": "2026-01-01T00:00:00Z"},
        "hurried": {"rate_limit": "1/hour"},
    }
    with running(folder, servers, members) as it:
        yield it
