"""The engine as a language model: a real ``llm.LLM`` whose every chat is an engine run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, cast

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, llm
from livekit.agents.llm import AvailabilityChangedEvent
from livekit.agents.llm.utils import to_openai_response_format
from livekit.agents.types import NotGivenOr

from ..core.models import Candidate, Identity, Modality, Plan, ProbeInput
from ..errors import AllCandidatesFailed, Refused, TrunklineError
from .attempt import Engine
from .chat_line import ChatLine
from .livekit_compat import ChatStream, current_turn, no_retry
from .livekit_errors import to_livekit
from .livekit_farewell import audience_of, end_after_speech
from .livekit_options import with_options
from .probes import probe
from .served import Served


class LLM(Served, llm.LLM[Any]):
    """Serves every ``chat`` by a plan; a change of plan takes effect at the next chat.

    Each candidate's ``live`` is a ``WireLLM`` or a plugin's LLM. A candidate's options go with
    every chat and outrank the parameters of the call, as the constructor's do in LiveKit.
    """

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        identity: Callable[[], Identity],
        *,
        closing: Callable[[], Awaitable[None]],
        prompt_cache_breakpoints: bool | Literal["auto"] = "auto",
    ) -> None:
        llm.LLM.__init__(self)
        self.breakpoints = prompt_cache_breakpoints
        self._last_context: llm.ChatContext | None = None
        self.begin(engine, plan, identity, closing)

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[llm.ToolChoice] = NOT_GIVEN,
        response_format: NotGivenOr[Any] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> LLMStream:
        """Start a chat. ``conn_options`` other than LiveKit's default set its deadlines."""
        return self.start(
            self.plan,
            chat_ctx=chat_ctx,
            tools=tools,
            conn_options=conn_options,
            parallel_tool_calls=parallel_tool_calls,
            tool_choice=tool_choice,
            response_format=response_format,
            extra_kwargs=extra_kwargs,
        )

    def start(
        self,
        plan: Plan,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None,
        conn_options: APIConnectOptions,
        parallel_tool_calls: NotGivenOr[bool],
        tool_choice: NotGivenOr[llm.ToolChoice],
        response_format: NotGivenOr[Any],
        extra_kwargs: NotGivenOr[dict[str, Any]],
    ) -> LLMStream:
        """Start a chat by ``plan``; the other arguments are those of ``chat``."""
        self.prepare()
        if plan.probe is ProbeInput.CONTEXT:
            self._last_context = chat_ctx
        params: dict[str, Any] = dict(extra_kwargs or {})
        for name, value in (
            ("parallel_tool_calls", parallel_tool_calls),
            ("tool_choice", tool_choice),
        ):
            if value is not NOT_GIVEN:
                params[name] = value
        if response_format is not NOT_GIVEN:
            params["response_format"] = to_openai_response_format(cast(Any, response_format))
        plan = with_options(plan, conn_options)
        return LLMStream(self, plan, chat_ctx, tools or [], conn_options, params)

    async def _prewarm_impl(self) -> None:
        await self.warm_up(Modality.LLM)

    async def probe(self, candidate: Candidate, plan: Plan) -> None:
        context = self._last_context if plan.probe is ProbeInput.CONTEXT else None
        await probe(self.engine, Modality.LLM, candidate, plan, self.identity, context)

    def available(self, candidate: Candidate, available: bool) -> None:
        live = candidate.live if isinstance(candidate.live, llm.LLM) else self
        self.emit("llm_availability_changed", AvailabilityChangedEvent(live, available))

    async def aclose(self) -> None:
        """Close the model and everything that served for it."""
        await llm.LLM.aclose(self)  # the next in line is the gateway client, which is not built
        await self.close()


class LLMStream(ChatStream):
    """One chat: the engine's run over the plan, its deltas as LiveKit's chunks."""

    def __init__(
        self,
        owner: LLM,
        plan: Plan,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool],
        conn_options: APIConnectOptions,
        params: dict[str, Any],
    ) -> None:
        self._owner = owner
        self._plan = plan
        self._turn = current_turn()
        self._line = ChatLine(self, plan, owner.serves, params, owner.breakpoints)
        super().__init__(owner, chat_ctx=chat_ctx, tools=tools, conn_options=no_retry(conn_options))

    async def _run(self) -> None:
        owner = self._owner
        self._line.audience = audience_of(owner)
        try:
            await owner.engine.run(self._line, self._plan, owner.caller(), turn=self._turn)
        except AllCandidatesFailed as error:
            if not self._plan.apology or self._line.has_begun:
                raise to_livekit(error) from error
            self.report(to_livekit(error))
            self._say("apology", self._plan.apology)
        except Refused as refused:
            if not refused.notice or self._line.has_begun:
                raise to_livekit(refused) from refused
            self._say("notice", refused.notice)
            if refused.ends_call:
                end_after_speech(owner)
        except TrunklineError as error:
            raise to_livekit(error) from error
        finally:
            self.mark_served(owner.serving, self._plan)

    def _say(self, what: str, text: str) -> None:
        """Answer with a sentence of our own."""
        delta = llm.ChoiceDelta(role="assistant", content=text)
        self.send(llm.ChatChunk(id=what, delta=delta))
