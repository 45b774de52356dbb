"""Who spoke to whom: a caller who has heard one voice fail keeps the other for the call."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from ..core.models import Candidate, Plan
from ..core.newest import Newest

_KEPT = 4096


class Voices:
    """One a process. A call comes with many sockets, so no socket can know."""

    def __init__(self) -> None:
        self._known: Newest[tuple[str, bytes], str] = Newest(_KEPT)

    def ordered(self, plan: Plan, call: str, ask: bytes) -> Plan:
        """``plan`` with the voice that this call knows at its head."""
        known = self._known.get(_key(call, ask))
        own = [c for c in plan.candidates if c.key == known]
        if not own:
            return plan
        others = (c for c in plan.candidates if c is not own[0])
        return replace(plan, candidates=(own[0], *others))

    def note(self, candidate: Candidate, plan: Plan, call: str, ask: bytes) -> None:
        """Remember who served, when it is not who comes first anyway."""
        key = _key(call, ask)
        if key in self._known or candidate is not plan.candidates[0]:
            self._known[key] = candidate.key


def _key(call: str, ask: bytes) -> tuple[str, bytes]:
    return call, hashlib.blake2b(ask, digest_size=16).digest()  # an ask may be long
