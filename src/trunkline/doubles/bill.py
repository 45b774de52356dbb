"""What the vendor would invoice, and what was asked of it.

The bill counts what the vendor received or made, also of requests that were interrupted or failed
once the model had begun; a request that was refused before that is free. Characters are those of
an utterance with its white space collapsed: how vendors count the blanks that a client puts
between the pieces of a sentence is not documented, and ours have to be reproducible.
"""

from __future__ import annotations

import msgspec

from ..clock import now_ns
from ..core.models import Usage

__all__ = ["BillLine", "RequestLog"]


class BillLine(msgspec.Struct, kw_only=True):
    """One request on the vendor's invoice. ``units`` grow while it runs; ``at`` is UTC ns."""

    provider: str
    endpoint: str
    model: str
    request_id: str
    units: Usage = Usage()
    at: int = msgspec.field(default_factory=now_ns)

    def charge(
        self,
        *,
        audio_in_ns: int = 0,
        audio_out_ns: int = 0,
        tokens_in: int = 0,
        tokens_out: int = 0,
        tokens_audio_in: int = 0,
        tokens_audio_out: int = 0,
        tokens_cached: int = 0,
        tokens_cached_audio: int = 0,
    ) -> None:
        """Add units to the line; audio tokens are part of ``tokens_in`` and ``tokens_out``."""
        units = self.units
        self.units = msgspec.structs.replace(
            units,
            audio_in_ns=units.audio_in_ns + audio_in_ns,
            audio_out_ns=units.audio_out_ns + audio_out_ns,
            tokens_in=units.tokens_in + tokens_in,
            tokens_out=units.tokens_out + tokens_out,
            tokens_audio_in=units.tokens_audio_in + tokens_audio_in,
            tokens_audio_out=units.tokens_audio_out + tokens_audio_out,
            tokens_cached=units.tokens_cached + tokens_cached,
            tokens_cached_audio=units.tokens_cached_audio + tokens_cached_audio,
        )

    def spell(self, text: str) -> None:
        """Set the characters to those of ``text``, all that the utterance has received so far."""
        self.units = msgspec.structs.replace(self.units, characters=len(" ".join(text.split())))


class RequestLog(msgspec.Struct, kw_only=True):
    """One request as the double saw it: the fault it got, and how many outputs left.

    ``outcome`` is ``running``, ``ok``, ``cancelled`` (the client went away) or the fault's kind.
    """

    id: str
    provider: str
    endpoint: str
    model: str
    at: int = msgspec.field(default_factory=now_ns)
    fault: str = ""
    outputs: int = 0
    outcome: str = "running"
