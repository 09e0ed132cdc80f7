"""Real MCP servers whose tools always do the same: `python scripted.py modern|legacy|stdio|misbehaving`.

The name of a tool is what becomes of its calls.
"""

from gateway.demo.servers import main
from gateway.demo.tools import DemoTool, Outcome

WELL_BEHAVED = (
    DemoTool(name="echo", description="Answers with its arguments."),
    DemoTool(name="pause", description="Takes 50 ms.", median_ms=50, spread=0),
    DemoTool(name="count", description="Reports progress five times.", median_ms=50, spread=0, steps=5),
    DemoTool(name="tool_error", description="Fails.", failures={Outcome.TOOL_ERROR: 1}, message="the tool says no"),
    DemoTool(
        name="jsonrpc_error", description="Refuses.", failures={Outcome.JSONRPC_ERROR: 1}, message="the server says no"
    ),
    DemoTool(name="hang", description="Never answers.", failures={Outcome.HANG: 1}),
)
MISBEHAVED = (
    DemoTool(name="echo", description="Answers."),
    DemoTool(
        name="http_error", description="Answers HTTP 502.", failures={Outcome.HTTP_ERROR: 1}, message="Bad Gateway"
    ),
    DemoTool(name="garbage", description="Answers half a message.", failures={Outcome.GARBAGE: 1}),
    DemoTool(name="cut", description="Closes the connection in the middle.", failures={Outcome.CUT: 1}),
)
TOOLS = {"modern": WELL_BEHAVED, "legacy": WELL_BEHAVED, "stdio": WELL_BEHAVED, "misbehaving": MISBEHAVED}

if __name__ == "__main__":
    main(TOOLS)
