"""`fastmcp` as a client; see `drive` in test_clients.py for what it reads and writes."""

import asyncio
import json
import sys

from fastmcp import Client
from fastmcp.client.auth import BearerAuth
from fastmcp.client.transports import StreamableHttpTransport
from mcp.shared.exceptions import MCPError


async def main(url: str, token: str) -> None:
    calls = json.load(sys.stdin)
    answers = []
    async with Client(StreamableHttpTransport(url, auth=BearerAuth(token))) as client:
        listed = [tool.name for tool in await client.list_tools()]
        for name, arguments in calls:
            progress: list[float] = []

            async def note(step: float, *_: object, into: list[float] = progress) -> None:
                into.append(step)

            try:
                result = await client.call_tool(name, arguments, progress_handler=note, raise_on_error=False)
                content = [block.model_dump(mode="json", exclude_none=True) for block in result.content]
                answers.append({"isError": result.is_error, "content": content, "progress": progress})
            except MCPError as error:
                answers.append({"code": error.error.code, "message": error.error.message})
    json.dump({"tools": listed, "answers": answers}, sys.stdout)


asyncio.run(main(*sys.argv[1:]))
