"""The polite end of a call: the notice is heard, then the session closes, and nobody retries.

An error raised to a session costs what LiveKit does about errors: a recogniser is opened again
every half second, a model's caller waits in silence. A session that closes does none of it.
"""

from __future__ import annotations

import contextlib
from typing import Any

from livekit.agents import llm, stt, tts

from .gate_rules import Audience
from .livekit_compat import current_speech, is_closing, session_of

Model = stt.STT[Any] | llm.LLM[Any] | tts.TTS[Any]


def audience_of(model: Model) -> Audience:
    """Who hears ``model``: a caller where a session uses it; outside of one nobody knows."""
    return Audience.ANYBODY if session_of(model) is None else Audience.CALLER


def end_after_speech(model: Model) -> None:
    """Have the session of ``model`` close when what is now being said has been heard.

    Who is interrupted has not been heard: the caller asks again and is told again. Does nothing
    outside a session.
    """
    session = session_of(model)
    if session is None:
        return
    speech = current_speech()
    if speech is None or speech.done():
        session.shutdown()
        return

    def said(_: object) -> None:
        if not speech.interrupted:
            session.shutdown()

    speech.add_done_callback(said)


def say_and_end(model: Model, notice: str) -> None:
    """Have the session of ``model`` say ``notice`` and close; nothing outside a session."""
    session = session_of(model)
    if session is None or is_closing(session):
        return
    if notice:
        with contextlib.suppress(RuntimeError):  # it has no voice, or says its last words already
            session.say(notice, allow_interruptions=False)
    session.shutdown()
