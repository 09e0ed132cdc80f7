"""What a gateway says of its plans, and how they are changed."""

from typing import Any

import httpx

from tests.system.running import TLS, Gateway


def used(gateway: Gateway) -> int:
    """The month's calls against the limit, as the API counts them."""
    usage = gateway.ask("/analytics/usage")["usage"]["mcp_proxy_calls"]
    assert usage["limit"] is not None
    return int(usage["used"])


def metric(gateway: Gateway, name: str, **labels: str) -> float:
    """The sum of the series that have these labels."""
    text = httpx.get(f"{gateway.observer}/metrics", headers={"Accept": "text/plain"}, timeout=10, verify=TLS).text
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{") and all(one in line for one in wanted)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def change(gateway: Gateway, **settings: Any) -> None:
    """Write the configuration anew, with other settings of its own."""
    gateway._settings = settings
    gateway.write()
