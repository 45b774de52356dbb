"""The JSON of a chat completion, read into deltas.

Only the fields that are needed are decoded. A stream's chunk and a whole completion differ in one
name (``delta``, ``message``), so one reader takes both. Format:
https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from ..clock import new_id
from ..core.models import Usage
from ..core.quirks import ChatQuirks
from ..errors import ProtocolViolation, ProviderFault
from .chat import ChatDelta, ToolCall
from .meter import with_thoughts
from .wire_alike import Alike
from .wire_errors import ErrorBody, from_event


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolPart(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: dict[str, Any] | None = None


class _Delta(msgspec.Struct):
    content: str | list[Any] | None = None
    tool_calls: list[_ToolPart] | None = None
    extra_content: dict[str, Any] | None = None
    refusal: str | None = None
    audio: dict[str, Any] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None

    def native(self) -> Usage:
        prompt = self.prompt_tokens_details or _PromptDetails()
        completion = self.completion_tokens_details or _CompletionDetails()
        out, reasoning = with_thoughts(
            self.prompt_tokens,
            self.completion_tokens or 0,
            completion.reasoning_tokens or 0,
            self.total_tokens or 0,
        )
        return Usage(
            tokens_in=self.prompt_tokens or 0,
            tokens_out=out,
            tokens_cached=prompt.cached_tokens or 0,
            tokens_cache_written=prompt.cache_write_tokens or 0,
            tokens_reasoning=reasoning,
            tokens_audio_in=prompt.audio_tokens or 0,
            tokens_audio_out=completion.audio_tokens or 0,
        )


class _Chunk(msgspec.Struct):
    id: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    service_tier: str | None = None
    error: ErrorBody | str | None = None


_decode = msgspec.json.Decoder(_Chunk).decode

_LESSONS = 4
"""Chunks of an answer that others are expected to be like, at most: some send none alike."""


class ChunkReader:
    """The state of one answer: give it each payload in turn, and ``end`` after the last.

    ``id`` is the provider's id of the completion, ``text_chars`` the visible characters so far.
    ``usage`` is the last that was told, ``is_counted`` that it is of the whole answer: some
    providers tell with every chunk what has been used by then.
    With ``verbatim`` every payload gives a delta, which holds it as a stream's chunk.
    """

    def __init__(
        self, quirks: ChatQuirks, secrets: tuple[str, ...] = (), *, verbatim: bool = False
    ) -> None:
        self.id = ""
        self.usage: Usage | None = None
        self.is_counted = False
        self.text_chars = 0
        self.finish_reason = ""
        self._secrets = secrets
        self._verbatim = verbatim
        self._alike: Alike | None = None
        self._lessons = _LESSONS
        self._tools = _ToolAssembly()
        self._thinking = _ThinkingFilter(*quirks.think_tags) if quirks.think_tags else None

    def deltas(self, payloads: Sequence[bytes]) -> Iterator[ChatDelta]:
        """Yield what ``payloads`` add. Where they are wanted verbatim, alike ones do so together.

        Raises ProtocolViolation for what is not a chunk, and the error a provider sent in one.
        """
        at = 0
        while at < len(payloads):
            several = payloads[at:] if self._verbatim else payloads[at : at + 1]
            texts = self._alike.texts_of(several) if self._alike is not None else ()
            if texts:
                delta = self._said(texts)
                if self._verbatim:
                    delta.raw = payloads[at : at + len(texts)]
                at += len(texts)
                if self._verbatim or delta.text:
                    yield delta
            else:
                found = self.read(payloads[at])
                at += 1
                if found is not None:
                    yield found

    def read(self, payload: bytes) -> ChatDelta | None:
        """Return what a payload adds, None when that is nothing. Raises as ``deltas`` does."""
        self._alike = None
        try:
            chunk = _decode(payload)
        except (ValueError, RecursionError) as error:
            # The decoder's text names the place and the type, never the value.
            raise ProtocolViolation(f"not a chat completion chunk: {error}") from None
        if chunk.error is not None:
            raise from_event(chunk.error, request_id=self.id, secrets=self._secrets)
        if chunk.id:
            self.id = chunk.id
        delta = ChatDelta(self.id, service_tier=chunk.service_tier or "")
        if chunk.usage is not None:
            self.usage = delta.usage = chunk.usage.native()
        choices = chunk.choices or ()
        for choice in choices:
            if choice.index == 0:
                self._choose(choice, delta)
        if chunk.usage is not None:
            self.is_counted = bool(self.finish_reason)
        if delta.text and self._lessons:
            self._lessons -= 1
            self._alike = Alike.to(payload)
        if self._verbatim:
            is_whole = choices and choices[0].message is not None
            delta.raw = (_as_chunk(payload) if is_whole else payload,)
        elif not (
            delta.text or delta.tool_calls or delta.usage or delta.finish_reason or delta.extra
        ):
            return None
        return delta

    def end(self) -> ChatDelta | None:
        """Return what a clean end releases: held-back text, a call that no reason completed."""
        delta = ChatDelta(id=self.id)
        self.is_counted = self.usage is not None
        if not self.finish_reason:
            delta.tool_calls = self._tools.finish()
            self._show("", delta, final=True)
        return delta if delta.content else None

    def _choose(self, choice: _Choice, delta: ChatDelta) -> None:
        reason, part = choice.finish_reason or "", choice.delta or choice.message or _NOTHING
        text = part.content
        if self._verbatim and (part.refusal or part.audio):
            delta.says_more = True
        if not reason and not part.tool_calls and type(text) is str:  # nearly all of them
            if self._thinking is not None:
                text = self._thinking.visible(text, final=False)
            delta.text, delta.extra = text, part.extra_content
            self.text_chars += len(text)
            return
        if reason == "error":
            raise ProviderFault("the provider ended the stream with the reason 'error'")
        if reason:
            self.finish_reason = delta.finish_reason = reason
        delta.extra = part.extra_content
        text = text if isinstance(text, str) else _flatten(text)
        if text or reason:
            self._show(text, delta, final=bool(reason))
        if part.tool_calls:
            delta.tool_calls = self._tools.add(part.tool_calls)
        if reason in ("tool_calls", "stop"):
            delta.tool_calls += self._tools.finish()

    def _said(self, texts: Sequence[str]) -> ChatDelta:
        text = "".join(texts)
        delta = ChatDelta(self.id)
        self._show(text, delta)
        if delta.text == text:
            delta.pieces = texts
        return delta

    def _show(self, text: str, delta: ChatDelta, *, final: bool = False) -> None:
        if self._thinking is not None:
            text = self._thinking.visible(text, final=final)
        delta.text = text
        self.text_chars += len(text)


_NOTHING = _Delta()


def _as_chunk(completion: bytes) -> bytes:
    """Return a whole completion, read before, as the one chunk of a stream."""
    chunk: dict[str, Any] = msgspec.json.decode(completion)
    chunk["object"] = "chat.completion.chunk"
    for choice in chunk["choices"]:
        choice["delta"] = delta = choice.pop("message", None) or {}
        for index, call in enumerate(delta.get("tool_calls") or ()):
            call.setdefault("index", index)
    return msgspec.json.encode(chunk)


def _flatten(content: list[Any] | None) -> str:
    """Join the text among content parts; Mistral sends these, and reasoning as other types."""
    texts = (part.get("text") if isinstance(part, dict) else part for part in content or ())
    return "".join(text for text in texts if isinstance(text, str))


class _ToolAssembly:
    """Puts tool calls together. A call is complete when the next begins, or at the finish.

    A part with a name begins a call, unless it repeats the id of the open one; parts without a
    name continue it. That reads OpenAI (arguments streamed), Ollama (several whole calls in one
    chunk) and Gemini (whole calls that all have index 0, without ids).
    """

    __slots__ = ("_arguments", "_extra", "_id", "_index", "_name")

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._id = self._name = ""
        self._index: int | None = None
        self._arguments: list[str] = []
        self._extra: dict[str, Any] | None = None

    def add(self, parts: list[_ToolPart]) -> tuple[ToolCall, ...]:
        """Take the parts of one chunk and return the calls that they complete."""
        completed: tuple[ToolCall, ...] = ()
        for part in parts:
            function = part.function
            if function is None:
                continue
            if function.name and not (self._name and part.id and part.id == self._id):
                completed += self.finish()
                self._id, self._name = part.id or f"call_{new_id()}", function.name
                self._index, self._extra = part.index, part.extra_content
            elif function.arguments and (not self._name or part.index not in (None, self._index)):
                raise ProtocolViolation("arguments came for a tool call that is not open")
            if function.arguments:
                self._arguments.append(function.arguments)
        return completed

    def finish(self) -> tuple[ToolCall, ...]:
        """Complete the open call; returns one call or none."""
        if not self._name:
            return ()
        call = ToolCall(self._id, self._name, "".join(self._arguments), self._extra)
        self._clear()
        return (call,)


class _ThinkingFilter:
    """Hides reasoning that a model writes between two tags inside its visible text."""

    __slots__ = ("_held", "_hidden", "_start", "_tags")

    def __init__(self, start: str, end: str) -> None:
        self._tags = (start, end)
        self._start = start[0]
        self._held = ""
        self._hidden = False

    def visible(self, text: str, *, final: bool) -> str:
        """Return what may be shown of ``text``; the start of a possible tag is held back."""
        if not self._hidden and not self._held and self._start not in text:
            return text
        shown = []
        text = self._held + text
        while True:
            tag = self._tags[self._hidden]
            before, found, after = text.partition(tag)
            if not found:
                break
            if not self._hidden:
                shown.append(before)
            self._hidden = not self._hidden
            text = after
        keep = 0 if final else _overlap(text, tag)
        self._held = text[len(text) - keep :]
        if not self._hidden:
            shown.append(text[: len(text) - keep])
        return "".join(shown)


def _overlap(text: str, tag: str) -> int:
    """Return how many characters at the end of ``text`` could begin ``tag``."""
    longest = min(len(text), len(tag) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(tag[:n])), 0)
