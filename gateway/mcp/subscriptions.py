"""`subscriptions/listen`: the filter of a modern client, and the frames of its stream.

Source: specification 2026-07-28, basic/patterns/subscriptions; 2025-11-25, server/resources "Subscriptions".
"""

from collections.abc import Callable, Container, Iterable
from typing import Any, Final

import msgspec
from mcp.shared.subscriptions import LISTEN_STREAM_METHODS, SUBSCRIPTION_ID_META_KEY
from mcp_types import SERVER_INFO_META_KEY
from msgspec import Raw, Struct

from gateway.mcp import jsonrpc
from gateway.mcp.jsonrpc import DECODE_ERRORS, Id, InvalidParamsError, Params

METHOD: Final = "subscriptions/listen"
ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
RESOURCE_UPDATED: Final = "notifications/resources/updated"
CHANGES: Final = LISTEN_STREAM_METHODS
"""The notifications that a client may subscribe to; a legacy client gets the same ones without a subscription."""
MAX_RESOURCES: Final = 1000
"""URIs in one filter."""

_URI_SEPARATORS: Final = ("/", "?", "#")
_LISTS: Final = {
    "notifications/tools/list_changed": "tools_list_changed",
    "notifications/prompts/list_changed": "prompts_list_changed",
    "notifications/resources/list_changed": "resources_list_changed",
}


class SubscriptionFilter(Struct, frozen=True, rename="camel", omit_defaults=True):
    """`SubscriptionFilter` of MCP: only what it names is sent."""

    tools_list_changed: bool | None = None
    prompts_list_changed: bool | None = None
    resources_list_changed: bool | None = None
    resource_subscriptions: tuple[str, ...] | None = None

    def wants(self, method: str, uri: str | None = None) -> bool:
        """Whether a change belongs on the stream; `uri` is the resource's, for `notifications/resources/updated`.

        An update may name a sub-resource of one in the filter (2026-07-28, `ResourceUpdatedNotification`).
        """
        if method == RESOURCE_UPDATED:
            return uri is not None and any(
                uri == whole or _is_part(uri, whole) for whole in self.resource_subscriptions or ()
            )
        flag = _LISTS.get(method)
        return flag is not None and bool(getattr(self, flag))

    @property
    def is_empty(self) -> bool:
        return self == NOTHING


NOTHING: Final = SubscriptionFilter()
_decode_filter: Final = msgspec.json.Decoder(SubscriptionFilter).decode


def _is_part(uri: str, whole: str) -> bool:
    """Whether a resource is below another one, or a part of it by its query or fragment."""
    return uri.startswith(whole) and (
        whole[-1:] in _URI_SEPARATORS or uri[len(whole) : len(whole) + 1] in _URI_SEPARATORS
    )


def read(params: Params) -> SubscriptionFilter:
    """The filter of a request's params.

    Raises:
        InvalidParamsError: it is missing or malformed.
    """
    if "notifications" not in params:
        raise InvalidParamsError("'params.notifications' is missing: it names what to listen for")
    try:
        found = _decode_filter(params["notifications"])
    except DECODE_ERRORS as error:
        raise InvalidParamsError(f"'params.notifications' is not a valid filter: {error}") from error
    if found.resource_subscriptions is not None and len(found.resource_subscriptions) > MAX_RESOURCES:
        raise InvalidParamsError(f"'resourceSubscriptions' names more than {MAX_RESOURCES} resources")
    return found


def honored(
    requested: SubscriptionFilter,
    *,
    tools: bool = False,
    prompts: bool = False,
    resources: bool = False,
    subscribable: Callable[[str], bool] = lambda _: False,
) -> SubscriptionFilter:
    """The part of a filter that the gateway can honor: lists whose changes it receives, URIs it can subscribe to."""
    uris = tuple(uri for uri in dict.fromkeys(requested.resource_subscriptions or ()) if subscribable(uri))
    return SubscriptionFilter(
        tools_list_changed=(requested.tools_list_changed and tools) or None,
        prompts_list_changed=(requested.prompts_list_changed and prompts) or None,
        resources_list_changed=(requested.resources_list_changed and resources) or None,
        resource_subscriptions=uris or None,
    )


def without(one: SubscriptionFilter, uris: Container[str]) -> SubscriptionFilter:
    """A filter without these resources."""
    left = tuple(uri for uri in one.resource_subscriptions or () if uri not in uris)
    return msgspec.structs.replace(one, resource_subscriptions=left or None)


def union(filters: Iterable[SubscriptionFilter]) -> SubscriptionFilter:
    """The filter for one stream from an upstream that serves all these subscriptions."""
    filters = list(filters)
    uris = dict.fromkeys(uri for one in filters for uri in one.resource_subscriptions or ())
    return SubscriptionFilter(
        tools_list_changed=any(one.tools_list_changed for one in filters) or None,
        prompts_list_changed=any(one.prompts_list_changed for one in filters) or None,
        resources_list_changed=any(one.resources_list_changed for one in filters) or None,
        resource_subscriptions=tuple(uris) or None,
    )


def listen_params(wanted: SubscriptionFilter) -> Params:
    """The params of the gateway's own `subscriptions/listen`, without `_meta`."""
    return {"notifications": jsonrpc.raw(wanted)}


def acknowledged(subscription: Id, kept: SubscriptionFilter) -> bytes:
    """The first frame of the stream, with the filter that the gateway honors."""
    meta = jsonrpc.raw({SUBSCRIPTION_ID_META_KEY: subscription})
    return jsonrpc.notification(ACKNOWLEDGED, {"_meta": meta, "notifications": jsonrpc.raw(kept)})


def read_acknowledged(params: Params) -> SubscriptionFilter:
    """The part of the gateway's filter that an upstream honors; nothing if it does not say."""
    try:
        return read(params)
    except InvalidParamsError:
        return NOTHING


def with_subscription_id(subscription: Id, method: str, params: Params) -> bytes:
    """A change as a frame of the stream that `subscriptions/listen` with this id opened."""
    meta: dict[str, Any] = {**_meta(params), SUBSCRIPTION_ID_META_KEY: subscription}
    return jsonrpc.notification(method, {**params, "_meta": jsonrpc.raw(meta)})


def without_subscription_id(method: str, params: Params) -> bytes:
    """A change of an upstream's stream, for a legacy client: no word of the gateway's own subscription."""
    meta = _meta(params)
    meta.pop(SUBSCRIPTION_ID_META_KEY, None)
    kept = {name: value for name, value in params.items() if name != "_meta"}
    if meta:
        kept["_meta"] = jsonrpc.raw(meta)
    return jsonrpc.notification(method, kept or None)


def updated_uri(params: Params) -> str | None:
    """Which resource a `notifications/resources/updated` is about."""
    return jsonrpc.decode_or(jsonrpc.decode_string, params.get("uri"), None)


def final_result(subscription: Id, server_info: Raw | None = None) -> Raw:
    """The result of a `subscriptions/listen` whose stream the gateway ends, as at its shutdown."""
    meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: subscription}
    if server_info is not None:
        meta[SERVER_INFO_META_KEY] = server_info
    return jsonrpc.raw({"resultType": "complete", "_meta": meta})


def _meta(params: Params) -> Params:
    return jsonrpc.decode_or(jsonrpc.decode_params, params.get("_meta"), {})
