"""What a session tells while it talks, noted on the clock of the line."""

from __future__ import annotations

import asyncio
from typing import Protocol

from livekit.agents import (
    AgentSession,
    ChatMessage,
    CloseEvent,
    ConversationItemAddedEvent,
    FunctionToolsExecutedEvent,
    UserInputTranscribedEvent,
    UserStateChangedEvent,
)

from ...core.turns import Heard, Said
from .line import Line


class Watcher(Protocol):
    """Who is told what happens while it happens."""

    def heard(self, words: Heard) -> None: ...
    def hearing(self, text: str) -> None: ...
    def said(self, words: Said) -> None: ...
    def used_tool(self, at_ms: int, name: str) -> None: ...


class Notes:
    """Messages and tool calls in milliseconds since the line was opened.

    Latencies are those of ``ChatMessage.metrics``. ``failure`` is why the session ended by itself;
    ``over`` is set when it does.
    """

    def __init__(
        self, session: AgentSession[None], line: Line, watcher: Watcher, over: asyncio.Event
    ) -> None:
        self.heard: list[Heard] = []
        self.said: list[Said] = []
        self.tools: list[tuple[int, str]] = []
        self.failure = ""
        self._line = line
        self._watcher = watcher
        self._over = over
        self._voice = (0, 0)  # the caller's latest stretch of speech
        session.on("conversation_item_added", self._on_message)
        session.on("user_input_transcribed", self._on_transcript)
        session.on("user_state_changed", self._on_voice)
        session.on("function_tools_executed", self._on_tools)
        session.on("close", self._on_close)

    def _on_message(self, event: ConversationItemAddedEvent) -> None:
        message = event.item
        if not isinstance(message, ChatMessage):
            return
        if message.role == "user":
            self.heard.append(self._heard(message))
            self._watcher.heard(self.heard[-1])
        elif message.role == "assistant":
            self.said.append(self._said(message))
            self._watcher.said(self.said[-1])

    def _on_transcript(self, event: UserInputTranscribedEvent) -> None:
        self._watcher.hearing(event.transcript)

    def _on_voice(self, event: UserStateChangedEvent) -> None:
        at_ms = self._ms(event.created_at)
        if event.new_state == "speaking":
            self._voice = (at_ms, at_ms)
        elif event.old_state == "speaking":
            self._voice = (self._voice[0], at_ms)

    def _on_tools(self, event: FunctionToolsExecutedEvent) -> None:
        for call in event.function_calls:
            self.tools.append((self._ms(call.created_at), call.name))
            self._watcher.used_tool(*self.tools[-1])

    def _on_close(self, event: CloseEvent) -> None:
        if event.error is not None:
            self.failure = str(event.error)
        self._over.set()

    def _heard(self, message: ChatMessage) -> Heard:
        metrics = message.metrics
        started, stopped = self._voice
        # LiveKit measures nothing when the caller spoke again before the turn was taken as ended.
        if "started_speaking_at" in metrics and "stopped_speaking_at" in metrics:
            started = self._ms(metrics["started_speaking_at"])
            stopped = self._ms(metrics["stopped_speaking_at"])
        return Heard(
            text=message.text_content or "",
            started_ms=started,
            stopped_ms=stopped,
            eou_ms=_milli(metrics.get("end_of_turn_delay")),
            stt_ms=_milli(metrics.get("transcription_delay")),
        )

    def _said(self, message: ChatMessage) -> Said:
        metrics = message.metrics
        started = metrics.get("started_speaking_at", message.created_at)
        return Said(
            text=message.text_content or "",
            started_ms=self._ms(started),
            stopped_ms=self._ms(metrics.get("stopped_speaking_at", started)),
            interrupted=message.interrupted,
            ttft_ms=_milli(metrics.get("llm_node_ttft")),
            ttfb_ms=_milli(metrics.get("tts_node_ttfb")),
            e2e_ms=_milli(metrics.get("e2e_latency")),
        )

    def _ms(self, wall_s: float) -> int:
        return round(self._line.since_open(wall_s) * 1000)


def _milli(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
