"""The keys ``budgets`` and ``limits`` of trunkline.yaml, and the kinds of value they have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from ..core.budgets import MILLION, Action
from ..core.names import did_you_mean
from ..core.scopes import Dimension, Unit
from ..core.windows import Window, duration, window
from .schema_kinds import Key, Listed, Named, OneOf, Read, Seconds, Section, Text, Type, YesNo
from .yaml_nodes import Broken, Node, Problems, Scalar

UTC = "UTC"

_NOWHERE = ("localtime", "posixrules", "Factory")
_COPIES = ("posix/", "right/")
"""What a machine has among its zones that is none, differs from the next machine's, or counts leap
seconds."""


class WithoutStore(StrEnum):
    """What becomes of attempts while the store of what is spent cannot be used."""

    ALLOW = "allow"
    BLOCK = "block"


def _written(node: Node) -> str | None:
    """A scalar as it is written, so that a decimal number stays exact."""
    if not isinstance(node, Scalar) or isinstance(node.value, bool | None):
        return None
    return str(node.value) if node.expanded else node.raw


@dataclass(frozen=True)
class Amount:
    """A decimal number in the unit's base, exactly."""

    unit: Unit

    @property
    def label(self) -> str:
        return "number, above 0"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Broken):
            return None
        try:
            return Read(self.unit.read(_written(node) or ""), node)
        except ValueError as error:
            told = f", and is {node}" if isinstance(node, Scalar) else ""
            problems.at(node, f"{error}{told}")
        return None


@dataclass(frozen=True)
class Number:
    """A number that is read further once its unit is known."""

    label: str = "number, above 0"

    def read(self, node: Node, problems: Problems) -> Read | None:
        text = _written(node)
        if text is None and not isinstance(node, Broken):
            problems.at(node, "must be a number above 0")
        return None if text is None else Read(text, node)


@dataclass(frozen=True)
class Share:
    """A part of something, in millionths."""

    label: str = "above 0, to 1"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Broken):
            return None
        try:
            share = int(Decimal(_written(node) or "NaN") * MILLION)
        except (ArithmeticError, ValueError, OverflowError):
            share = 0
        if 0 < share <= MILLION:
            return Read(share, node)
        told = f", and is {node}" if isinstance(node, Scalar) else ""
        problems.at(node, f"must be a part, above 0 and at most 1{told}")
        return None


@dataclass(frozen=True)
class Words:
    """A sentence, empty for ``false``."""

    label: str = "text or `false`"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Scalar) and node.value is False:
            return Read("", node)
        return Text().read(node, problems)


@dataclass(frozen=True)
class WindowName:
    label: str = "`hour`, `day`, `week`, `month`, `total`, `call`, or a length such as `24h`"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Broken):
            return None
        try:
            read: Window = window(_written(node) or "")
        except ValueError as error:
            told = f", and is {node}" if isinstance(node, Scalar) else ""
            problems.at(node, f"{error}{told}")
            return None
        return Read(read, node)


@dataclass(frozen=True)
class Zone:
    label: str = "IANA name"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Broken):
            return None
        name = _written(node) or ""
        try:
            if name in _NOWHERE or name.startswith(_COPIES):
                raise ValueError
            if name != UTC:
                ZoneInfo(name)
        except (ValueError, OSError, KeyError):  # malformed, a directory, unknown
            told = f", and is {node}" if isinstance(node, Scalar) else ""
            zones = available_timezones()
            near = did_you_mean(name, zones)
            if not zones:
                near = "; this machine knows none: install the package tzdata"
            problems.at(node, f"must be a time zone such as Europe/Berlin{told}{near}")
            return None
        return Read(name, node)


_PER = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


@dataclass(frozen=True)
class Per:
    """A length of time, in seconds."""

    label: str = "`second`, `minute`, `hour`, `day`, or a length such as `90s`"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Broken):
            return None
        text = _written(node) or ""
        seconds = _PER.get(text) or duration(text)
        if seconds is not None and seconds <= 7 * 86400:
            return Read(seconds, node)
        told = f", and is {node}" if isinstance(node, Scalar) else ""
        problems.at(node, f"must be second, minute, hour, day or a length up to 7d{told}")
        return None


_MEANINGS = {
    Dimension.ORG: "the organisation",
    Dimension.PROJECT: "the project",
    Dimension.AGENT: "the agent's name",
    Dimension.KEY: "the key that the call came in with",
    Dimension.ROOM: "a shell pattern of the room's name",
    Dimension.TAG: "a tag of the call",
    Dimension.MODALITY: "stt, llm or tts",
}
_SCOPE: Type = Listed(
    Section(
        {
            d.value: Key(Text("text or `*`"), f"{_MEANINGS[d]}; `*`: each on its own", "any")
            for d in Dimension
        }
    ),
    "list of pairs",
)


def _amount(units: Iterable[Unit]) -> Key:
    kinds = {u.value: Key(Amount(u), f"so much in {_UNITS[u]}", "this or another") for u in units}
    return Key(Section(kinds), "how much, in one unit", required=True)


_UNITS = {
    Unit.USD: "US dollars, exact to the nano-dollar",
    Unit.TOKENS: "tokens in and out",
    Unit.CHARACTERS: "characters to be spoken",
    Unit.AUDIO_SECONDS: "seconds of audio heard and spoken",
    Unit.REQUESTS: "attempts",
    Unit.STREAMS: "attempts open at once",
}
_STEP = Section(
    {
        "at": Key(Share(), "the part of the amount from which on", "1"),
        "do": Key(OneOf(Action), "what is done", required=True),
        "seconds": Key(Seconds(), "how long `throttle` makes each attempt wait, up to 10", "0.5"),
        "route": Key(Text(), "the cheaper route of `downgrade`", "none"),
    }
)
_SHARED = {
    "notice": Key(
        Words(),
        "what a refused caller is told, in words to be spoken; `false`: nothing",
        "as below",
    ),
    "shadow": Key(YesNo(), "decide and tell, but hinder nobody", "`false`"),
    "without_store": Key(
        OneOf(WithoutStore), "what happens while what is spent cannot be looked up", "`allow`"
    ),
}
BUDGETS: Final = Named(
    "<name>",
    Section(
        {
            "scope": Key(_SCOPE, "whose calls: all of the pairs hold", "every call"),
            "window": Key(WindowName(), "what the amount is for", required=True),
            "time_zone": Key(Zone(), "of a calendar window", f"`{UTC}`"),
            "amount": _amount(unit for unit in Unit if unit is not Unit.STREAMS),
            "steps": Key(
                Listed(_STEP),
                "what is done as the amount is used up",
                "`warn` at 0.8, `block` at 1",
            ),
            **_SHARED,
        }
    ),
)
LIMITS: Final = Named(
    "<name>",
    Section(
        {
            "scope": Key(_SCOPE, "whose calls: all of the pairs hold", "every call"),
            "amount": _amount(unit for unit in Unit if unit is not Unit.USD),
            "per": Key(Per(), "the time that the amount is for; `streams` have none", "none"),
            "burst": Key(Number(), "how much of it at once", "the amount"),
            "wait": Key(Seconds(), "how long an attempt waits for room, up to 60", "not at all"),
            **_SHARED,
        }
    ),
)
