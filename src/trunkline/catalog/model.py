"""What a row of the catalogue says: a provider's quirks are fields here, never branches in code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..core.models import Modality
from ..core.quirks import ChatQuirks

LENIENT = ChatQuirks(strict_tools=False, extra_content=False, max_tokens_field="max_tokens")
"""What every compatible endpoint understands: nothing that OpenAI added lately."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret that a provider needs: its key in trunkline.yaml and where it is else looked up.

    ``variables`` are environment variables; the first one that is set is used. With
    ``optional_elsewhere`` it may be left out where the connection has a ``base_url`` of its own.
    """

    name: str
    variables: tuple[str, ...]
    optional_elsewhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """Chat through our own client, for a provider that speaks OpenAI's chat completions.

    ``models`` maps the names used in references to the provider's own. ``service_tiers`` maps
    LiveKit's inference classes (low, standard, priority) to values of ``service_tier``; a class
    that is not in it cannot be asked for. ``surcharges`` are as a plugin's, of the request's
    fields. ``extra_params`` are body fields that only this provider
    has.
    """

    base_url: str
    default_model: str
    models: Mapping[str, str] = field(default_factory=dict)
    quirks: ChatQuirks = LENIENT
    service_tiers: Mapping[str, str] = field(default_factory=dict)
    extra_params: frozenset[str] = frozenset()
    surcharges: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Realtime:
    """A WebSocket that speaks OpenAI's Realtime API: ``/realtime`` under ``base_url``.

    ``models`` maps the names used in references to the provider's own.
    """

    base_url: str
    default_model: str
    models: Mapping[str, str] = field(default_factory=dict)
    surcharges: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A class that is loaded by name when it is first needed, and how a candidate becomes a call.

    ``model``, ``suffix`` and ``language`` are the constructor's arguments for the reference's
    parts, None where it has no such argument; ``suffix`` is the language of a recogniser and the
    voice of a synthesiser, ``language`` the language of a synthesiser. ``implied`` are suffixes
    that need no argument because the model already means them, a language in any region.
    ``voices`` maps a family whose voices are part of the model's name to its default voice
    (``aura-2`` to ``andromeda``). ``suffix_listed`` says that the suffix's argument is a list.
    ``named_voices`` are those that every client of this provider's API may name, whoever serves it
    in the end.

    ``aliases`` maps names of options, as LiveKit Inference has them, to arguments. ``fixed``
    arguments are always given and ``overrides`` are attributes set after construction: they are
    what the class would otherwise take from the environment. ``base_url`` is formatted with
    ``{base}`` (the connection's URL) and ``{ws}`` (the same as ws://), ``home`` is what is given
    when the connection has none; an empty one leaves the class its own constant.

    A recogniser takes audio that is said again ``replay_speed`` times faster than it was said, 0 as
    fast as it goes. One that finds the ends of turns waits up to ``turn_ms`` for the speaker to go
    on; ``turn_option`` is the argument that changes this. ``flush_is_final`` says that a flush
    makes everything heard final, as the end of the input does.

    ``surcharges`` are arguments that the vendor asks more for than the model's rate, with what it
    sells by them; those of a chat may be fields of the request, ``a.b`` one within another.
    """

    target: str
    default_model: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    model: str | None = "model"
    suffix: str | None = None
    suffix_listed: bool = False
    language: str | None = None
    implied: frozenset[str] = frozenset()
    voices: Mapping[str, str] = field(default_factory=dict)
    named_voices: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    base_url: str = "{base}"
    home: str = ""
    replay_speed: float = 0.0
    turn_ms: int = 0
    turn_option: str = ""
    flush_is_final: bool = False
    surcharges: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, Plugin] = field(default_factory=dict)

    def turn_seconds(self, options: Mapping[str, Any]) -> float:
        """How long a recogniser may wait after the last word before the words are final."""
        asked = options.get(self.turn_option)
        return (asked if isinstance(asked, int | float) else self.turn_ms) / 1000

    def variant(self, model: str) -> Plugin:
        """The row for ``model``: a family by prefix, the longest first, or this one."""
        for prefix in sorted(self.variants, key=len, reverse=True):
            if model.startswith(prefix):
                return self.variants[prefix]
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One row. ``local`` engines run on this machine, need no key and cost an explicit zero.

    ``extra`` is the optional dependency that brings the plugins' package, empty when there is none
    to install. ``aliases`` are other names that references and settings may use. ``regional`` is
    how the hosts end that serve within one region, which prices call ``regional``.
    """

    name: str
    title: str
    credentials: tuple[Credential, ...] = ()
    extra: str = ""
    local: bool = False
    aliases: tuple[str, ...] = ()
    regional: str = ""
    stt: Plugin | None = None
    llm: Wire | Plugin | None = None
    tts: Plugin | None = None
    realtime: Realtime | None = None

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return tuple(m for m in Modality if getattr(self, m.value) is not None)
