"""``POST /v1/decisions``: LiveKit's decision models, played by any language model."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from ..compose import Wanted
from ..core.models import Identity, Modality, Plan, Purpose
from ..errors import AllCandidatesFailed
from .chat_request import BODY_LIMIT
from .decision_line import DecisionLine
from .decision_request import read
from .exchange import Exchange
from .identity import identity_of
from .plans import Ask
from .refusal import Refusal
from .switchboard import Switchboard

_HINTS = {
    401: "check the API key and the secret, or the bearer key",
    403: "the token needs the grant inference.perform",
    404: "GET /v1/models lists what is served here; gateway.decisions names what decides",
    405: "POST the model, the state and the questions",
    413: "shorten the state",
    429: "try again later",
    503: "try again later",
}


def dress(exchange: Exchange) -> None:
    """Have every answer look as LiveKit's client of decisions reads it, refusals too."""
    exchange.form = _form
    exchange.heads = ((b"x-livekit-request-id", exchange.id.encode()),)


async def decide(house: Switchboard, exchange: Exchange) -> None:
    """Answer questions about a text by the plan that their model stands for.

    Nobody hears any of it: a rule that has no room is a 429, whatever it says to callers.
    """
    headers, settings = exchange.headers, house.trunkline.settings
    body = await exchange.body(BODY_LIMIT)
    asked = read(body, headers.get("x-livekit-inference-priority", ""), settings)
    identity = identity_of(headers, settings, exchange.id, exchange.principal)
    provider = headers.get("x-livekit-inference-provider", "")
    ask = Ask(Modality.LLM, Wanted(asked.model), provider=provider)
    await house.ready_for(ask)
    with house.plans.lease(ask) as plan:
        exchange.begin()
        line = DecisionLine(plan, asked, house.habits)
        await _run(house, line, plan, identity)
    served, used = str(line.candidate), line.metered().usage
    told = {
        "id": exchange.id,
        "model": served,
        "answers": line.answers,
        "usage": {"input_tokens": used.tokens_in, "output_tokens": used.tokens_out},
    }
    who = (b"x-trunkline-model", served.encode("ascii", "replace"))
    await exchange.answer(200, msgspec.json.encode(told), headers=(who,))


async def _run(house: Switchboard, line: DecisionLine, plan: Plan, identity: Identity) -> None:
    """Ask all candidates; where nobody decides, those in the other form that rejected the one."""
    engine = house.trunkline.engine
    try:
        await engine.run(line, plan, identity, purpose=Purpose.JUDGE)
    except AllCandidatesFailed as error:
        again, line.rejected = tuple(line.rejected), []
        if not again:
            raise
        rest = replace(plan, candidates=again, retries=0)
        try:
            await engine.run(line, rest, identity, purpose=Purpose.JUDGE)
        except AllCandidatesFailed as second:
            raise AllCandidatesFailed([*error.causes, *second.causes]) from None


def _form(refusal: Refusal, request_id: str) -> bytes:
    """An error as LiveKit's gateway writes it: the client tells its user the ``error``."""
    hint = _HINTS.get(refusal.status) or f"see what the field {refusal.param} takes"
    if refusal.status not in _HINTS and not refusal.param:
        hint = f"the gateway's log has the reason under {request_id}"
    return msgspec.json.encode({"type": refusal.kind, "error": str(refusal), "hint": hint})
