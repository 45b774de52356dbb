"""``trunkline.llm.FallbackAdapter`` over instances that the user built."""

from __future__ import annotations

from livekit.agents import APIConnectionError
from plugins import FakeLLM
from switchboard import ask

import trunkline
from trunkline import llm


async def test_instances_of_one_model_are_ill_and_well_apart() -> None:
    """Two servers with the same model: that one is down says nothing of the other."""
    down, well = FakeLLM([APIConnectionError("down")]), FakeLLM(["served"])
    adapter = llm.FallbackAdapter([down, well])
    keys = [candidate.key for candidate in adapter.plan.candidates]
    assert keys == ["fakellm/fake@live", "fakellm/fake@live-2"]
    for _ in range(2):
        assert await ask(adapter) == "served "
    assert (down.chats, well.chats) == (1, 2)
    await adapter.aclose()
    await trunkline.aclose()
