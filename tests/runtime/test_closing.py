"""What becomes of a provider's stream that nobody wants any more."""

from __future__ import annotations

import asyncio
from typing import Any

from livekit.agents import llm
from plugins import FakeLLM
from schedules import CALL, DEADLINES, House, candidate
from virtual_time import run

from trunkline.core.models import Plan
from trunkline.runtime.llm import LLM


class Deaf(FakeLLM):
    """Loses the first cancellation, as ``asyncio.wait_for`` does when it meets the result."""

    def chat(self, *, chat_ctx: Any, tools: Any, conn_options: Any, **_: Any) -> llm.LLMStream:
        return _DeafChat(self, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options)


class _DeafChat(llm.LLMStream):
    async def _run(self) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)


def test_a_stream_that_loses_its_cancellation_is_closed_all_the_same() -> None:
    async def play() -> None:
        house = House()
        plan = Plan((candidate("a", Deaf(())), candidate("b", FakeLLM(["served"]))), DEADLINES)
        model = LLM(house.engine, plan, lambda: CALL, closing=house.closing("all"))
        async with model.chat(chat_ctx=llm.ChatContext.empty()) as stream:
            said = [chunk.delta.content async for chunk in stream if chunk.delta]
        assert said == ["served "]
        assert house.clock() < 2 * DEADLINES.first_content, "the caller waited for a farewell"
        await house.aclose(model)
        assert house.closed == ["all"]

    run(play())
