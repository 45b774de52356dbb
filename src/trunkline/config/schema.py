"""The keys of trunkline.yaml as one table: what is read, what is refused, what is documented.

``docs/reference/settings.md`` is written from ``KEYS`` by ``scripts/reference.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ..core.models import CASCADE, AfterOutput, Deadlines, Hedge, Modality, ProbeInput
from .schema_gate import BUDGETS, LIMITS, Share
from .schema_kinds import (
    Key,
    Listed,
    Named,
    OneOf,
    Plain,
    Port,
    Read,
    Seconds,
    Section,
    Text,
    TextOr,
    Type,
    Version,
    YesNo,
)
from .webhooks import WEBHOOKS

__all__ = ["ROOT", "Read", "keys"]


def _seconds(meaning: str, default: float) -> Key:
    return Key(Seconds(), meaning, f"{default:g}")


_D = Deadlines()
_DEADLINES = Section(
    {
        "connect": _seconds("until the provider has accepted the connection", _D.connect),
        "first_content": _seconds("until the first content, once it is owed", _D.first_content),
        "idle": _seconds("between two pieces of content, while more is owed", _D.idle),
        "total": _seconds("for the whole attempt", _D.total),
        "adaptive": Key(
            YesNo(),
            "shorten `first_content` to twice the candidate's recent p95, while another follows",
            "false",
        ),
    }
)
_CANDIDATE = Section(
    {
        "model": Key(Text(), "`provider/model[:suffix]` or a bare provider", required=True),
        "voice": Key(Text(), "the voice (TTS), in place of the suffix", "the provider's"),
        "language": Key(Text(), "the language (STT, TTS)", "the provider's"),
        "options": Key(Plain(), "arguments of the provider's class or chat", "none"),
    }
)
_HEDGE = Section(
    {
        "after": Key(
            Seconds(),
            "without content, after which the next candidate is asked as well",
            "the first one's recent p95",
        ),
        "share": Key(
            Share(),
            "the part of the route's requests that may be asked twice",
            f"{Hedge().share:g}",
        ),
    }
)
_ROUTE = Section(
    {
        "modality": Key(OneOf(Modality), "what the route is for", required=True),
        "candidates": Key(
            Listed(TextOr(_CANDIDATE)),
            "model references in the order in which they are tried",
            required=True,
        ),
        "deadlines": Key(_DEADLINES, "when an attempt is given up", "as below"),
        "after_output": Key(
            OneOf(AfterOutput),
            "what a failure means once output has left",
            "`stop` for llm and realtime, else `continue`",
        ),
        "hedge": Key(
            _HEDGE,
            "ask the next candidate as well when the first is slow to begin (llm, tts)",
            "never",
        ),
        "probe": Key(
            OneOf(ProbeInput),
            "what a model that was ill is asked before callers get it back (llm)",
            "`tiny`",
        ),
        "apology": Key(
            Text(),
            "what the caller hears when all have failed: a sentence (llm), a WAV file (tts)",
            "nothing",
        ),
    }
)
_OPTIONS = Section(
    {m.value: Key(Plain(), f"options of every {m} candidate here", "none") for m in CASCADE}
)
PROVIDER = Section(
    {
        "kind": Key(Text(), "the provider whose protocol is spoken", "the entry's name"),
        "base_url": Key(Text("URL"), "another address than the provider's own", "the provider's"),
        "options": Key(_OPTIONS, "options by modality, beneath those of a candidate", "none"),
        "tier": Key(
            Text(), "the account's plan or service tier, where prices have one", "the usual"
        ),
        "region": Key(Text(), "where the account is served, where prices differ", "the usual"),
    },
    others=(
        "<credential>",
        Key(Text(), "a credential of the provider, as providers.md names it", "its variable"),
    ),
)
_STACK = Section(
    {m.value: Key(Text(), f"a route for {m} or a model reference", required=True) for m in CASCADE}
)
_GATEWAY = Section(
    {
        "keys": Key(
            Named("<key>", Text()),
            "LiveKit API keys, each with its secret",
            "`LIVEKIT_API_KEY` and `LIVEKIT_API_SECRET`, else `devkey: secret`",
        ),
        "bearer": Key(Listed(Text()), "keys for OpenAI clients", "none"),
        "host": Key(Text("address"), "where `trunkline serve` listens", "`127.0.0.1`"),
        "port": Key(Port(), "the port it listens on", "8800"),
        "decisions": Key(
            Text(),
            "the stack, route or model (llm) that stands in for LiveKit's decision models",
            "`auto`",
        ),
    }
)
_PROJECT = Section(
    {
        "org": Key(Text(), "the organisation that pays", "`default`"),
        "name": Key(Text(), "the project within it", "`default`"),
    }
)

ROOT: Final = Section(
    {
        "version": Key(Version(), "the version of this format", required=True),
        "project": Key(
            TextOr(_PROJECT), "whose calls these are; text is the project's name", "`default`"
        ),
        "state": Key(
            Text("directory"),
            "where the journal and the ledger are; relative to this file",
            "the user's state directory",
        ),
        "providers": Key(Named("<name>", PROVIDER), "connections", "those whose variables are set"),
        "routes": Key(Named("<name>", _ROUTE), "named lists of candidates", "none"),
        "stacks": Key(
            Named("<name>", _STACK), "a route or model for each modality", "`default`, `local`"
        ),
        "budgets": Key(BUDGETS, "what may be spent", "none"),
        "limits": Key(LIMITS, "what may be used in a time, or at once", "none"),
        "webhooks": Key(WEBHOOKS, "who is told of failures, see failover.md", "none"),
        "gateway": Key(_GATEWAY, "who may use `trunkline serve`, and where it listens", "as below"),
    }
)


def keys(kind: Type = ROOT, path: str = "") -> Iterator[tuple[str, Key]]:
    """Every key with its path, in the order of the table."""
    if isinstance(kind, TextOr):
        yield from keys(kind.section, path)
    elif isinstance(kind, Named):
        yield from keys(kind.of, f"{path}.{kind.placeholder}")
    elif isinstance(kind, Listed):
        yield from keys(kind.of, f"{path}[]")
    elif isinstance(kind, Section):
        for name, key in (*kind.keys.items(), *([kind.others] if kind.others else [])):
            inner = f"{path}.{name}" if path else name
            yield inner, key
            yield from keys(key.type, inner)
