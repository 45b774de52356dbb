"""``POST /v1/chat/completions``: LiveKit Inference's language models, and OpenAI's."""

from __future__ import annotations

import logging
from dataclasses import replace

from ..compose import Wanted
from ..core.models import Candidate, Identity, Modality, Plan, Purpose
from ..errors import AllCandidatesFailed, Refused, TrunklineError
from ..runtime.attempt import Engine
from ..runtime.gate_rules import Audience
from .chat_answer import StreamedAnswer, WholeAnswer
from .chat_line import ChatLine, Unsent
from .chat_request import BODY_LIMIT, Asked, read
from .exchange import Exchange
from .identity import identity_of
from .plans import Ask
from .refusal import log_refusal, refusal_of
from .switchboard import Switchboard

logger = logging.getLogger("trunkline")


async def complete(house: Switchboard, exchange: Exchange) -> None:
    """Answer a chat by the plan that its model stands for."""
    headers = exchange.headers
    asked = read(await exchange.body(BODY_LIMIT), headers.get("x-livekit-inference-priority", ""))
    provider = headers.get("x-livekit-inference-provider", "")
    identity = identity_of(headers, house.trunkline.settings, exchange.id, exchange.principal)
    kind = StreamedAnswer if asked.stream else WholeAnswer
    answer = kind(exchange, wants_usage=asked.wants_usage or not asked.stream)
    keep_alive = answer.keep_alive if isinstance(answer, StreamedAnswer) else None
    ask = Ask(Modality.LLM, Wanted(asked.model), provider=provider)
    await house.ready_for(ask)
    with house.plans.lease(ask) as plan:
        exchange.begin(keep_alive)
        line = ChatLine(plan, asked, answer)
        # a judge or a simulation has that class, and would take a notice for an answer
        is_heard = asked.inference_class != "low"
        line.audience = exchange.principal.audience if is_heard else Audience.NOBODY
        line.may_be_cut_short = line.audience is not Audience.CALLER
        if line.audience is Audience.NOBODY or not await _parted(house, identity, answer):
            await _serve(house, plan, line, identity, answer)


async def _parted(
    house: Switchboard, identity: Identity, answer: StreamedAnswer | WholeAnswer
) -> bool:
    """Answer a call that is to end with the notice; False for any other."""
    farewell = house.farewells.of(identity)
    if farewell is None:
        return False
    logger.info("request %s is answered with the notice of its call", answer.exchange.id)
    await answer.say("notice", farewell.notice)
    house.farewells.answered(identity, farewell.notice)
    return True


async def _serve(
    house: Switchboard,
    plan: Plan,
    line: ChatLine,
    identity: Identity,
    answer: StreamedAnswer | WholeAnswer,
) -> None:
    try:
        await house.trunkline.engine.run(line, plan, identity)
    except TrunklineError as error:
        instead = _instead(error, plan)
        if instead and not line.has_begun:
            log_refusal(answer.exchange.id, refusal_of(error))
            await answer.say(*instead)
            if isinstance(error, Refused) and error.ends_call:
                house.farewells.answered(identity, error.notice)
        elif isinstance(answer, StreamedAnswer) and answer.exchange.started:
            log_refusal(answer.exchange.id, refusal := refusal_of(error))
            await answer.fail(refusal)
        else:
            raise
    else:
        await answer.end()


def _instead(error: TrunklineError, plan: Plan) -> tuple[str, str] | None:
    """What the caller hears in the place of an answer, by the settings: an id and a sentence."""
    if isinstance(error, AllCandidatesFailed) and plan.apology:
        return "apology", plan.apology
    if isinstance(error, Refused) and error.notice:
        return "notice", error.notice
    return None


_PING = Asked([{"role": "user", "content": "ping"}], params={"max_completion_tokens": 16})
"""Reasoning models refuse a smaller limit than this."""


async def probe(engine: Engine, candidate: Candidate, plan: Plan, identity: Identity) -> None:
    """Ask ``candidate`` next to nothing; its outcome is recorded. Raises the attempt's error."""
    single = replace(plan, candidates=(candidate,), retries=0)
    line = ChatLine(single, _PING, Unsent())
    line.may_only_think = True
    await engine.run(line, single, identity, purpose=Purpose.PROBE)
