"""What trunkline.yaml says, as frozen data. Nothing here reads a file or the environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..core.budgets import Budget
from ..core.limits import Limit
from ..core.models import AfterOutput, Deadlines, Hedge, Modality, ModelRef, ProbeInput
from ..core.webhooks import Hook


class Secret:
    """A credential's value, which does not show itself: only ``reveal`` returns it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(hidden)"


@dataclass(frozen=True, slots=True)
class Connection:
    """One configured account with a provider, or one server that speaks a provider's protocol.

    ``provider`` is the catalogue's name; ``base_url`` is None for the provider's own service.
    ``options`` holds the options of each modality. ``double`` is where a double answers in its
    place: health, prices and names stay what they are without it. ``tier`` and ``region`` are the
    account's, for prices that differ by them.
    """

    name: str
    provider: str
    credentials: Mapping[str, Secret] = field(default_factory=dict)
    base_url: str | None = None
    options: Mapping[Modality, Mapping[str, Any]] = field(default_factory=dict)
    double: str | None = None
    tier: str = ""
    region: str = ""

    @property
    def address(self) -> str | None:
        """The URL that is called; None for the provider's own service."""
        return self.double or self.base_url


class Connections(Mapping[str, Connection]):
    """Connections by name; one that only ``find`` knows is made when it is first asked for.

    Iterating gives those that are made. Looking one up raises what ``find`` raises.
    """

    def __init__(
        self, made: Mapping[str, Connection], find: Callable[[str], Connection | None]
    ) -> None:
        self._made = dict(made)
        self._find = find

    def __getitem__(self, name: str) -> Connection:
        connection = self._made.get(name) or self._find(name)
        if connection is None:
            raise KeyError(name)
        self._made[name] = connection
        return connection

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __repr__(self) -> str:
        return repr(self._made)


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model reference with options, before a connection is found for it."""

    ref: ModelRef
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        text: str,
        modality: Modality,
        *,
        voice: str = "",
        language: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """Read a reference; ``voice`` (TTS) or ``language`` (STT) replaces its suffix.

        A synthesiser's ``language`` is one of its options. Raises UnknownModel.
        """
        ref = ModelRef.parse(text, modality)
        merged = dict(options or {})
        suffix = {Modality.STT: language, Modality.TTS: voice}.get(modality, "")
        if suffix:
            ref = ModelRef(ref.provider, ref.model, suffix)
        if modality is Modality.TTS and language:
            merged["language"] = language
        return cls(ref, merged)


@dataclass(frozen=True, slots=True)
class Route:
    """Ordered candidates for one modality, with their policy."""

    name: str
    modality: Modality
    candidates: tuple[ModelChoice, ...]
    deadlines: Deadlines
    after_output: AfterOutput
    probe: ProbeInput = ProbeInput.TINY
    apology: str = ""
    hedge: Hedge | None = None


@dataclass(frozen=True, slots=True)
class Stack:
    """What an agent talks to: for each modality the name of a route or a model reference."""

    name: str
    stt: str
    llm: str
    tts: str

    def member(self, modality: Modality) -> str:
        """The member for one of CASCADE."""
        return {Modality.STT: self.stt, Modality.LLM: self.llm, Modality.TTS: self.tts}[modality]


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Whom ``trunkline serve`` lets in, and where it listens.

    ``keys`` are LiveKit's pairs, the secret by its key; ``bearer`` are keys on their own.
    ``decisions`` is the name of what stands in for LiveKit's decision models.
    """

    keys: Mapping[str, Secret] = field(default_factory=dict)
    bearer: tuple[Secret, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8800
    decisions: str = "auto"


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration. ``state_dir`` is None where the file names no directory."""

    connections: Mapping[str, Connection]
    routes: Mapping[str, Route]
    stacks: Mapping[str, Stack]
    org: str = "default"
    project: str = "default"
    state_dir: Path | None = None
    gateway: GatewaySettings = GatewaySettings()
    budgets: tuple[Budget, ...] = ()
    limits: tuple[Limit, ...] = ()
    webhooks: tuple[Hook, ...] = ()


def after_output_of(modality: Modality) -> AfterOutput:
    """What a failure after output means where no route says it: a model's words are not redone."""
    stops = modality in (Modality.LLM, Modality.REALTIME)
    return AfterOutput.STOP if stops else AfterOutput.CONTINUE
