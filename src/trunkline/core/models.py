"""The words of the house as plain data: references, candidates, attempts, usage, money.

Money is an integer number of nano-dollars (1e-9 USD). Audio is counted in nanoseconds, text in
characters (Unicode code points), language models in tokens as the provider counts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Final, NamedTuple, Self

import msgspec

from ..errors import UnknownModel

NANOS_PER_USD = 1_000_000_000

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""What a column of the ledger can hold; figures come from providers, who may send anything."""


class Modality(StrEnum):
    """What is asked of a provider; ``REALTIME`` is speech in, speech out on one connection."""

    STT = "stt"
    LLM = "llm"
    TTS = "tts"
    REALTIME = "realtime"


CASCADE: Final = (Modality.STT, Modality.LLM, Modality.TTS)
"""What a stack is made of: ears, a mind and a mouth, one after the other."""


class Purpose(StrEnum):
    """Why an attempt was made; each costs, only ``SERVE`` is heard.

    ``HEDGE`` is an attempt beside another one that had content first. ``TRANSCRIPT`` is what a
    realtime model's provider writes down of the caller, by another model and on another bill.
    """

    SERVE = "serve"
    HEDGE = "hedge"
    PROBE = "probe"
    SHADOW = "shadow"
    REPLAY = "replay"
    JUDGE = "judge"
    TRANSCRIPT = "transcript"

    @property
    def takes_any(self) -> bool:
        """Whether it does not matter who answers: budgets may send it to a cheaper route."""
        return self is Purpose.SERVE or self is Purpose.JUDGE


class Quality(StrEnum):
    """How far a usage figure can be trusted."""

    EXACT = "exact"
    ESTIMATED = "estimated"
    UNDERESTIMATE = "underestimate"


_WHOLE_NAMES = (Modality.LLM, Modality.REALTIME)
"""Their models have no suffix, and a colon is part of the name."""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """``provider/model[:suffix]``; the suffix is a language (STT) or a voice (TTS).

    ``model`` is empty for a bare provider, which then serves its default model.
    """

    provider: str
    model: str = ""
    suffix: str = ""

    @classmethod
    def parse(cls, text: str, modality: Modality) -> Self:
        """Read a reference as LiveKit does: STT and TTS split at the last colon, others never.

        Raises UnknownModel when a part is empty or holds a control character or blank.
        """
        provider, slash, model = text.partition("/")
        suffix = ""
        if modality not in _WHOLE_NAMES:
            head, colon, tail = (model if slash else provider).rpartition(":")
            if colon:
                suffix = tail
                provider, model = (provider, head) if slash else (head, "")
        wanted = [provider, *([model] if slash else []), *([suffix] if text.endswith(":") else [])]
        if not all(wanted) or any(c.isspace() or not c.isprintable() for c in text):
            raise UnknownModel(
                f"model {text!r} is not of the form provider/model"
                f"{'' if modality in _WHOLE_NAMES else '[:suffix]'}"
            )
        return cls(provider, model, suffix)

    def __str__(self) -> str:
        text = f"{self.provider}/{self.model}" if self.model else self.provider
        return f"{text}:{self.suffix}" if self.suffix else text


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds we wait before an attempt is given up; enforced by us, never by a plugin.

    ``first_content`` and ``idle`` run only while the provider owes something. ``adaptive`` shortens
    ``first_content`` to what a candidate's own recent answers say, as long as another one follows.
    """

    connect: float = 2.0
    first_content: float = 3.0
    idle: float = 2.0
    total: float = 120.0
    adaptive: bool = False


@dataclass(frozen=True, slots=True)
class Hedge:
    """When the next candidate is asked as well, while the first has not begun to answer.

    ``after`` seconds; None: after the first one's recent p95, and not at all while that is unknown.
    ``share`` bounds the duplicates to that part of a route's requests.
    """

    after: float | None = None
    share: float = 0.1


class AfterOutput(StrEnum):
    """What a failure means once output has left."""

    STOP = "stop"
    RESTART = "restart"
    CONTINUE = "continue"


class ProbeInput(StrEnum):
    """What a language model that was ill is asked first: next to nothing, or the last context."""

    TINY = "tiny"
    CONTEXT = "context"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model reference, the connection that serves it and its options.

    ``live`` is what serves it once it is built: a client of ours or a plugin instance.
    ``replay_speed`` is how many times faster than it was said a recogniser takes audio that is said
    again; 0 is as fast as it goes. ``turn_seconds`` is how long after the last word it may wait for
    the speaker to go on before it calls the words final; ``flush_is_final`` says that a flush makes
    them final at once. ``own`` marks an instance that the user built: what is inside it is
    known to nobody else, and ``shared`` one that serves other plans as well. ``tier`` and
    ``region`` are what the connection says of its account, for prices that differ by them;
    ``surcharges`` are options that cost more than the model's rate, and what is sold by them.
    """

    ref: ModelRef
    connection: str
    options: Mapping[str, Any] = field(default_factory=dict)
    live: Any = None
    replay_speed: float = 0.0
    turn_seconds: float = 0.0
    flush_is_final: bool = False
    own: bool = False
    shared: bool = False
    tier: str = ""
    region: str = ""
    surcharges: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    key: str = field(init=False, compare=False, repr=False)
    """What health is kept by: provider x model x connection."""

    def __post_init__(self) -> None:
        key = f"{self.ref.provider}/{self.ref.model}@{self.connection}"
        object.__setattr__(self, "key", key)

    def __str__(self) -> str:
        return str(self.ref)


@dataclass(frozen=True, slots=True)
class Plan:
    """Ordered candidates and the policy they are tried under.

    ``retries`` is how often the last candidate is tried again, ``retry_pause`` seconds later, when
    an error says that this can help. ``apology`` is what the caller hears when all have failed: a
    sentence (LLM) or the path of a WAV file (TTS); empty for nothing.
    """

    candidates: tuple[Candidate, ...]
    deadlines: Deadlines = Deadlines()
    after_output: AfterOutput = AfterOutput.CONTINUE
    retries: int = 1
    retry_pause: float = 0.1
    probe: ProbeInput = ProbeInput.TINY
    apology: str = ""
    route: str = ""
    stack: str = ""
    variant: str = ""
    hedge: Hedge | None = None


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an attempt used, in the provider's native units.

    ``tokens_in`` includes ``tokens_cached`` and ``tokens_cache_written``; ``tokens_out`` includes
    ``tokens_reasoning``. ``tokens_cached_audio`` are those of ``tokens_audio_in`` that were cached,
    where the provider tells. ``audio_in_ns`` is audio pushed to a recogniser, ``audio_out_ns``
    audio that a voice produced, ``characters`` text pushed to a voice.
    """

    audio_in_ns: Int64 = 0
    audio_out_ns: Int64 = 0
    characters: Int64 = 0
    tokens_in: Int64 = 0
    tokens_out: Int64 = 0
    tokens_cached: Int64 = 0
    tokens_cache_written: Int64 = 0
    tokens_reasoning: Int64 = 0
    tokens_audio_in: Int64 = 0
    tokens_audio_out: Int64 = 0
    tokens_cached_audio: Int64 = 0


class Identity(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose call an attempt belongs to. Never a raw caller id: sticky keys are hashed.

    ``room``, ``job`` and ``agent`` are LiveKit's. ``session`` is the id that a client of a network
    door gives a stream; in process one that is made for each AgentSession, empty outside of one.
    """

    call: str
    org: str = "default"
    project: str = "default"
    agent: str = ""
    room: str = ""
    job: str = ""
    session: str = ""
    tags: tuple[str, ...] = ()
    key: str = ""


class Terms(NamedTuple):
    """What a price may depend on beside the model, as it was asked for or told by the provider.

    ``mode`` is ``streaming`` or ``batch``; ``language`` a recogniser's; ``tier`` the service tier
    of a chat, or the account's plan, and after a ``+`` each thing that costs extra; ``region``
    where it is served. Empty is the provider's usual.
    """

    mode: str = ""
    language: str = ""
    tier: str = ""
    region: str = ""


class Charge(msgspec.Struct, frozen=True, omit_defaults=True):
    """What usage costs: nano-dollars, the rate as text, its source and the day it was checked."""

    nanos: Int64
    rate: str
    source: str
    checked: str = ""


class Attempt(msgspec.Struct, omit_defaults=True):
    """One try at one candidate, as the ledger keeps it.

    ``started_ns`` is UTC; ``first_output_after_ns`` and ``duration_ns`` are monotonic durations
    from it. ``turn`` is LiveKit's speech id where there is one. ``outcome`` is ``ok``,
    ``cancelled`` or the outcome of the error that ended it. ``mode``, ``language``, ``tier`` and
    ``region`` are its ``Terms``.
    """

    id: str
    identity: Identity
    modality: Modality
    provider: str
    model: str
    connection: str
    started_ns: int
    turn: str = ""
    index: int = 0
    purpose: Purpose = Purpose.SERVE
    route: str = ""
    stack: str = ""
    variant: str = ""
    provider_request_id: str = ""
    first_output_after_ns: int | None = None
    duration_ns: int = 0
    outcome: str = "ok"
    usage: Usage = Usage()
    mode: str = ""
    language: str = ""
    tier: str = ""
    region: str = ""

    @property
    def terms(self) -> Terms:
        """What its price may depend on beside the model."""
        return Terms(self.mode, self.language, self.tier, self.region)

    @terms.setter
    def terms(self, terms: Terms) -> None:
        self.mode, self.language, self.tier, self.region = terms


class Entry(msgspec.Struct, omit_defaults=True):
    """A settlement, late usage or a correction of an attempt: units, their quality, the charge.

    Units and charges of an attempt's entries add up; those of later ones may be negative.
    ``charge`` is None when no price is known: the entry is ``unpriced``, never zero.
    """

    id: str
    attempt: str
    recorded_ns: int
    usage: Usage
    quality: Quality
    charge: Charge | None = None
    kind: str = "settlement"


class Settlement(msgspec.Struct):
    """One record of the journal: an attempt that ended, with its first entry."""

    attempt: Attempt
    entry: Entry


def money(nanos: int) -> str:
    """Nano-dollars as exact decimal dollars: ``money(1500) == "0.0000015"``."""
    sign = "-" if nanos < 0 else ""
    whole, part = divmod(abs(nanos), NANOS_PER_USD)
    return f"{sign}{whole}.{part:09d}".rstrip("0").rstrip(".")
