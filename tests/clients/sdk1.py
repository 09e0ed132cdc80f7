"""The official Python SDK 1.x as a client; see `drive` in test_clients.py for what it reads and writes."""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from mcp.shared.exceptions import McpError


async def main(url: str, token: str) -> None:
    calls = json.load(sys.stdin)
    answers = []
    async with (
        streamablehttp_client(url, headers={"Authorization": f"Bearer {token}"}) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        listed = [tool.name for tool in (await session.list_tools()).tools]
        for name, arguments in calls:
            progress: list[float] = []

            async def note(step: float, *_: object, into: list[float] = progress) -> None:
                into.append(step)

            try:
                result = await session.call_tool(name, arguments, progress_callback=note)
                content = [block.model_dump(mode="json", exclude_none=True) for block in result.content]
                answers.append({"isError": bool(result.isError), "content": content, "progress": progress})
            except McpError as error:
                answers.append({"code": error.error.code, "message": error.error.message})
    json.dump({"tools": listed, "answers": answers}, sys.stdout)


asyncio.run(main(*sys.argv[1:]))
