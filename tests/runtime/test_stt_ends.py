"""Streams of recognisers that end cleanly, before or after everything has become text."""

from __future__ import annotations

from pathlib import Path

import pytest
from listening import INK, NOVA, WORDS, House, speech
from plugins import candidate, frames
from test_stt_line import FINAL, INTERIM, Call, Script, Scripted, silence, whole

from trunkline.doubles import Rule

AT_ONCE = 1000.0
SPEECH = speech()


@pytest.mark.parametrize("faster", [4.0, AT_ONCE], ids=["as it is said", "at once"])
@pytest.mark.parametrize("kind", ["truncate", "end", "garbage", "die"])
async def test_a_turn_that_the_provider_does_not_end_is_heard_again(
    tmp_path: Path, kind: str, faster: float
) -> None:
    """Cartesia's plugin ends it in the provider's place, with the words it has."""
    async with House.open(tmp_path, INK, NOVA, faults=[Rule(kind=kind, after=8)]) as house:
        heard = await house.hear(SPEECH, faster=faster)
        assert heard.error is None
        assert heard.words == WORDS
        # on a slow machine a probe may find the primary well before the caller has finished
        assert [name for name, _ in house.attempts][:2] == ["primary", "backup"]
        assert house.attempts[0][1] != "ok"
        # only what was not final is said again
        assert house.billed_seconds("backup") < len(SPEECH) / 32000 - 1.0


async def test_turns_that_come_all_at_once_are_believed(tmp_path: Path) -> None:
    async with House.open(tmp_path, INK, NOVA) as house:
        heard = await house.hear(SPEECH, faster=AT_ONCE)
        assert heard.words == WORDS
        assert house.attempts == [("primary", "ok")]


TWO = frames(1.0) + silence(0.6) + frames(1.0) + silence(0.6)


async def test_words_after_the_last_final_are_owed_when_the_stream_ends() -> None:
    """Also those for which nobody knows where in the audio the final before them ended."""

    async def cut(stream: Script) -> None:
        await stream.ended()
        stream.say(FINAL, "one")
        stream.say(INTERIM, "tw")

    backup = Scripted(whole("two"))
    async with Call(candidate("a", Scripted(cut)), candidate("b", backup)) as call:
        await call.say(TWO, pace=0)
        await call.finish()
        assert call.said == ["one", "two"]
        assert call.ledger.outcomes == [("a", "stream_cut"), ("b", "ok")]
        assert backup.streams[0].start_time_offset == pytest.approx(1.3, abs=0.06)


async def test_one_final_for_all_that_was_said_is_believed() -> None:
    async def both(stream: Script) -> None:
        stream.say(INTERIM, "one")
        await stream.ended()
        stream.say(FINAL, "one two")

    backup = Scripted(whole("two"))
    async with Call(candidate("a", Scripted(both)), candidate("b", backup)) as call:
        await call.say(TWO, pace=0)
        await call.finish()
        assert call.said == ["one two"]
        assert call.ledger.outcomes == [("a", "ok")]
        assert not backup.streams
