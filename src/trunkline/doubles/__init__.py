"""Doubles: local servers that speak vendors' protocols, for tests and demonstrations.

    from trunkline.doubles import Double, Provider, Rule

    async with Double.serve([Provider("openai", replies=("Good morning.",))]) as double:
        llm = openai.LLM(base_url=f"{double.url('openai')}/v1", api_key="any")
        double.inject(Rule(kind="die", after=2))
        ...
        double.bill  # what the vendor would invoice

The official LiveKit plugins are their clients, unmodified; see docs/doubles.md for the address
each of them takes.
"""

from .bill import BillLine, RequestLog
from .config import Config, read_config
from .faults import Fault, Kind, Rule
from .latency import Latency, Pace
from .provider import Provider, Reply, ToolCall, Word
from .server import Double, serve_forever

__all__ = [
    "BillLine",
    "Config",
    "Double",
    "Fault",
    "Kind",
    "Latency",
    "Pace",
    "Provider",
    "Reply",
    "RequestLog",
    "Rule",
    "ToolCall",
    "Word",
    "read_config",
    "serve_forever",
]
