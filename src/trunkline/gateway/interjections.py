"""Whether somebody has said something whom no recogniser hears any more."""

from __future__ import annotations

from livekit import rtc

from ..runtime.audio import is_silent

_SOUND_SECONDS = 0.5
_QUIET_SECONDS = 0.6
"""So much sound, with no pause as long as this in it, and then the pause: less is a cough, and what
never pauses is a noise."""


class Interjections:
    """Listens for the end of what may have been a sentence."""

    def __init__(self) -> None:
        self._sound = self._quiet = 0.0

    def ends_with(self, frame: rtc.AudioFrame) -> bool:
        """Whether something that was said is over with ``frame``."""
        if not is_silent(frame):
            self._sound += frame.duration
            self._quiet = 0.0
            return False
        self._quiet += frame.duration
        if self._quiet < _QUIET_SECONDS - 1e-6:
            return False
        said, self._sound = self._sound, 0.0
        return said >= _SOUND_SECONDS
