"""The outcomes of calls as they are counted: by the clients, by the analytics API, and by the counters on /metrics."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from gateway.analytics.models import CallGroup, CallGroups
from gateway.demo.fixtures import WORKSPACES
from gateway.terminal.api_client import ApiClient, UnansweredError

Groups = Sequence[tuple[str, CallGroup]]
"""Each with its workspace."""


class CountKey(NamedTuple):
    """What calls are counted by; `error_type` is None for a success."""

    workspace: str
    token_id: str
    error_type: str | None


Counts = Counter[CountKey]


class ObserverClient:
    """Reads the observer's API and metrics."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def groups(self, by: str, from_s: float) -> Groups:
        """The calls since `from_s` (epoch seconds), grouped by dimensions.

        Raises:
            UnansweredError: the observer does not answer now.
        """
        parameters = [("by", by), ("from", f"{from_s:.3f}")]
        found: list[tuple[str, CallGroup]] = []
        for workspace in WORKSPACES:
            answer = await asyncio.to_thread(self._api.get, workspace, "/analytics/groups", CallGroups, parameters)
            found += [(workspace, group) for group in answer.groups]
        return found

    async def counted_by_api(self, from_s: float) -> Counts:
        groups = await self.groups("token,error_type", from_s)
        return Counts({_key(workspace, group.token_id, group.error_type): group.calls for workspace, group in groups})

    async def counted_by_metrics(self) -> Counts:
        try:
            url = f"{self._api.url}/metrics"
            response = await asyncio.to_thread(self._api.http.get, url, headers={"Accept": "text/plain"})
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise UnansweredError(f"{self._api.url}: {error}", str(error)) from error
        counts = Counts()
        for family in text_string_to_metric_families(response.text):
            for sample in family.samples:
                if sample.name == "mcp_gateway_tool_calls_total" and sample.value:
                    labels = sample.labels
                    counts[_key(labels["workspace"], labels["token"], labels["error_type"])] += int(sample.value)
        return counts


def _key(workspace: str, token_id: object, error_type: object) -> CountKey:
    """Of the values of the API or of labels, in which an empty error type means success."""
    return CountKey(workspace, str(token_id), str(error_type) if error_type else None)
