"""The fixture's resources and their one template."""

import json
import re
from typing import Final

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    BlobResourceContents,
    EmptyResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    SubscribeRequestParams,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from tests.conformance.input_requests import Context
from tests.conformance.samples import PNG

RESOURCE_NOT_FOUND: Final = -32002
"""Of the legacy era; reserved since 2026-07-28."""

_STATIC: Final = {
    contents.uri: contents
    for contents in (
        TextResourceContents(
            uri="test://static-text",
            mime_type="text/plain",
            text="This is the content of the static text resource.",
        ),
        BlobResourceContents(uri="test://static-binary", mime_type="image/png", blob=PNG),
        TextResourceContents(uri="test://watched-resource", mime_type="text/plain", text="Watched resource content"),
    )
}
_TEMPLATE: Final = "test://template/{id}/data"
_FROM_TEMPLATE: Final = re.compile(r"test://template/(?P<id>[^/]+)/data")


async def list_resources(_ctx: Context, _params: PaginatedRequestParams | None) -> ListResourcesResult:
    """`resources/list`."""
    return ListResourcesResult(
        resources=[
            Resource(uri=uri, name=uri.removeprefix("test://"), description=f"{uri}, always", mime_type=it.mime_type)
            for uri, it in _STATIC.items()
        ]
    )


async def list_templates(_ctx: Context, _params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
    """`resources/templates/list`."""
    template = ResourceTemplate(
        uri_template=_TEMPLATE, name="template", description="Data of an id", mime_type="application/json"
    )
    return ListResourceTemplatesResult(resource_templates=[template])


async def read_resource(ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
    """`resources/read`; what is not there has a code of its own in the legacy era."""
    uri = str(params.uri)
    match = _FROM_TEMPLATE.fullmatch(uri)
    if match:
        data = {"id": match["id"], "templateTest": True, "data": f"Data for ID: {match['id']}"}
        return ReadResourceResult(
            contents=[TextResourceContents(uri=uri, mime_type="application/json", text=json.dumps(data))]
        )
    if uri not in _STATIC:
        code = INVALID_PARAMS if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS else RESOURCE_NOT_FOUND
        raise MCPError(code, "Resource not found", {"uri": uri})
    return ReadResourceResult(contents=[_STATIC[uri]])


async def subscribe(_ctx: Context, _params: SubscribeRequestParams) -> EmptyResult:
    """`resources/subscribe`, of the legacy era; no resource of the fixture ever changes."""
    return EmptyResult()


async def unsubscribe(_ctx: Context, _params: UnsubscribeRequestParams) -> EmptyResult:
    """`resources/unsubscribe`."""
    return EmptyResult()
