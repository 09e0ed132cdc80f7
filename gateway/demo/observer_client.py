"""What Callscope says: its analytics API, and the counters on /metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gateway.demo.counts import CountKey, Counts
from gateway.demo.environment import Environment


class ObserverClient:
    """Asks the observer, as anybody may who has the JWT."""

    def __init__(self, http: httpx.AsyncClient, environment: Environment, workspaces: Sequence[str]) -> None:
        self._http = http
        self._environment = environment
        self._workspaces = workspaces

    async def groups(self, by: str, from_s: float) -> list[dict[str, Any]]:
        """The calls since `from_s` (epoch seconds), grouped; each group has its `workspace_id` as well."""
        groups = []
        for workspace in self._workspaces:
            response = await self._http.get(
                f"{self._environment.api_url(workspace)}/analytics/groups",
                params={"by": by, "from": f"{from_s:.3f}"},
                headers={"Authorization": f"Bearer {self._environment.jwt}"},
            )
            response.raise_for_status()
            groups += [{"workspace_id": workspace, **group} for group in response.json()["groups"]]
        return groups

    async def counted_by_api(self, from_s: float) -> Counts:
        """Every call in the ledger."""
        groups = await self.groups("token,error_type", from_s)
        return Counts(
            {
                CountKey(group["workspace_id"], group["token_id"], group["error_type"]): group["calls"]
                for group in groups
            }
        )

    async def counted_by_metrics(self) -> Counts:
        """Every call in the counters that Prometheus scrapes."""
        response = await self._http.get(f"{self._environment.observer}/metrics", headers={"Accept": "text/plain"})
        response.raise_for_status()
        counts = Counts()
        for family in text_string_to_metric_families(response.text):
            for sample in family.samples:
                if sample.name == "mcp_gateway_tool_calls_total" and sample.value:
                    counts[_key(sample.labels)] += int(sample.value)
        return counts


def _key(labels: Mapping[str, str]) -> CountKey:
    error_type = None if labels["status"] == "success" else labels["error_type"]
    return CountKey(labels["workspace"], labels["token"], error_type)
