"""What a gateway says of its plans, and how they are changed."""

from typing import Any

from tests.system.gateway_process import Gateway


def used(gateway: Gateway) -> int:
    """The month's calls against the limit, as the API counts them."""
    usage = gateway.ask("/analytics/usage")["usage"]["mcp_proxy_calls"]
    assert usage["limit"] is not None
    return int(usage["used"])


def metric(gateway: Gateway, name: str, **labels: str) -> float:
    """The sum of the series that have these labels."""
    wanted = {f'{label}="{value}"' for label, value in labels.items()}
    lines = [
        line
        for line in gateway.metrics().splitlines()
        if line.startswith(f"{name}{{") and all(one in line for one in wanted)
    ]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def change(gateway: Gateway, **settings: Any) -> None:
    """Write the configuration anew, with other settings of its own."""
    gateway._settings = settings
    gateway.write()
