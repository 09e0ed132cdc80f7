"""Real MCP servers whose tools always do the same: `python scripted.py modern|legacy|stdio|misbehaving`.

The name of a tool is what becomes of its calls.
"""

from gateway.demo.servers import main
from gateway.demo.tools import Fate, Tool

WELL_BEHAVED = (
    Tool(name="echo", description="Answers with its arguments."),
    Tool(name="pause", description="Takes 50 ms.", median_ms=50, spread=0),
    Tool(name="count", description="Reports progress five times.", median_ms=50, spread=0, steps=5),
    Tool(name="tool_error", description="Fails.", failures={Fate.TOOL_ERROR: 1}, message="the tool says no"),
    Tool(name="jsonrpc_error", description="Refuses.", failures={Fate.JSONRPC_ERROR: 1}, message="the server says no"),
    Tool(name="hang", description="Never answers.", failures={Fate.HANG: 1}),
)
MISBEHAVED = (
    Tool(name="echo", description="Answers."),
    Tool(name="http_error", description="Answers HTTP 502.", failures={Fate.HTTP_ERROR: 1}, message="Bad Gateway"),
    Tool(name="garbage", description="Answers half a message.", failures={Fate.GARBAGE: 1}),
    Tool(name="cut", description="Closes the connection in the middle.", failures={Fate.CUT: 1}),
)
TOOLS = {"modern": WELL_BEHAVED, "legacy": WELL_BEHAVED, "stdio": WELL_BEHAVED, "misbehaving": MISBEHAVED}

if __name__ == "__main__":
    main(TOOLS)
