"""Callscope: an MCP workspace gateway that records every tool call once."""

__version__ = "0.1.0"
