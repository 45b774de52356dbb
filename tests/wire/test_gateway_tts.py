"""``/v1/tts``, message by message, before doubles of the vendors."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway_house import AUTH, until
from gateway_speech import AURA, FLASH, NOVA, SONIC, Speech, Vendor, Wire, speech

from trunkline.clock import now_ns
from trunkline.compose import Wanted
from trunkline.core.models import Modality, Purpose
from trunkline.doubles import Kind, Rule, tones
from trunkline.gateway import tts, tts_line, websocket
from trunkline.gateway.plans import Ask

FAST = {"connect": 0.5, "first_content": 0.5, "idle": 0.5}


async def opened(house: Speech, query: str | None = None, **fields: Any) -> Wire:
    wire = await house.connect("tts", query, fields.pop("headers", None))
    await wire.create(sample_rate="24000", encoding="pcm_s16le", extra={}, **fields)
    return wire


async def test_a_socket_speaks_utterance_after_utterance(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[SONIC]) as house:
        wire = await opened(house, connection={"timeout": 10.0, "retries": 3})
        assert await wire.spoken("Good morning.", "How are you?") == tones.words_of(
            "good morning how are you"
        )
        assert await wire.spoken("I am well.") == ["i", "am", "well"]
        assert wire.kinds().count("session.created") == 1
        assert wire.kinds().count("done") == 2
        assert {m["session_id"] for m in wire.seen} == {wire.seen[0]["session_id"]}
        await wire.close()
        await until(lambda: len(house.attempts) == 2)
        assert {(a.modality, a.route, a.outcome) for a in house.attempts} == {
            (Modality.TTS, "mouth", "ok")
        }


@pytest.mark.parametrize(("text", "has_audio"), [((), False), ((" ",), False), (("...",), True)])
async def test_there_is_one_end_for_each_flush(
    tmp_path: Path, text: tuple[str, ...], has_audio: bool
) -> None:
    """Text without a word gets a moment of silence: without audio a client calls it a failure."""
    async with speech(tmp_path, tts=[SONIC]) as house:
        wire = await opened(house)
        assert await wire.spoken(*text) == []
        assert bool(wire.pcm) is has_audio
        assert wire.kinds().count("done") == 1
        assert await wire.spoken("Yes.") == ["yes"]
        assert house.doubles["tts0"].bill
        assert len(house.attempts) == 1
        await wire.close()


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 48000])
async def test_audio_comes_at_the_rate_that_was_asked_for(tmp_path: Path, rate: int) -> None:
    async with speech(tmp_path, tts=[AURA]) as house:
        wire = await house.connect("tts")
        await wire.create(sample_rate=str(rate))
        await wire.say("Good day.")
        await wire.until("done")
        assert tones.decode(wire.pcm, rate) == ["good", "day"]
        await wire.close()


async def test_every_sentence_has_the_voice_it_asks_for(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[SONIC]) as house:
        wire = await opened(house, model="tts0/sonic-3", voice="one", language="en")
        await wire.say("First.", flush=False, generation_config={"voice": "one"}, extra={})
        await wire.say(
            "Second.", flush=False, generation_config={"voice": "two", "language": "fr"}, extra={}
        )
        await wire.say("Third.", flush=True)
        await wire.until("done")
        assert tones.decode(wire.pcm, 24000) == ["first", "second", "third"]
        starts = [w["start"] for m in wire.seen if "words" in m for w in m["words"]]
        spoken = [word.start for word in tones.hear(wire.pcm, 24000)]
        assert starts == pytest.approx(spoken, abs=0.1)
        await wire.close()
        await until(lambda: len(house.attempts) == 3)
        assert {a.outcome for a in house.attempts} == {"ok"}
        assert {a.identity.call for a in house.attempts} == {house.attempts[0].identity.call}


async def test_a_language_goes_to_the_voices_that_take_one(tmp_path: Path) -> None:
    """Clients on Node always send one."""
    async with speech(tmp_path, tts=[SONIC]) as house:
        for model in ("mouth", "flite"):
            wire = await opened(house, model, model=model, language="en")
            assert await wire.spoken("Yes.") is not None
            assert wire.pcm
            await wire.close()


async def test_ids_of_the_call_are_on_every_attempt(tmp_path: Path) -> None:
    headers = {
        "X-LiveKit-Room-Id": "RM_1",
        "X-LiveKit-Job-ID": "AJ_1",
        "x-livekit-agent-id": "PA_1",
        "X-LiveKit-Session-ID": "inference_1",
    }
    rules = [Rule(kind=Kind.SERVER_ERROR)]
    async with speech(tmp_path, tts=[SONIC, FLASH], faults={"tts0": rules}) as house:
        wire = await opened(house, headers=headers)
        assert await wire.spoken("Good day.") == ["good", "day"]
        await wire.close()
        await until(lambda: len(house.attempts) == 2)
        for attempt in house.attempts:
            who = attempt.identity
            assert (who.room, who.job, who.agent) == ("RM_1", "AJ_1", "PA_1")
            assert (who.session, who.call, who.key) == ("inference_1", "AJ_1", "APItest")


async def test_who_has_heard_one_voice_fail_keeps_the_other(tmp_path: Path) -> None:
    rule = Rule(kind=Kind.SERVER_ERROR, nth=(1, 2))  # the first one is the prewarming
    async with speech(tmp_path, tts=[SONIC, FLASH], faults={"tts0": [rule]}) as house:
        recovered: list[Any] = []
        house.trunkline.on("recovered", recovered.append)

        def well() -> bool:
            with house.gateway.house.plans.lease(Ask(Modality.TTS, Wanted("mouth"))):
                return bool(recovered)

        served: list[str] = []
        for job in ("AJ_1", "AJ_1", "AJ_2"):  # each on a socket of its own, as after interruptions
            wire = await opened(house, headers={"X-LiveKit-Job-Id": job})
            assert await wire.spoken("Good day.") == ["good", "day"]
            await wire.close()
            real = [a for a in house.attempts if a.purpose is Purpose.SERVE]
            served.append(real[-1].connection)
            await until(well, 20)
        assert served == ["tts1", "tts1", "tts0"]


async def test_a_voice_that_dies_goes_on_unheard(tmp_path: Path) -> None:
    rule = Rule(kind=Kind.DIE, after=4)
    async with speech(tmp_path, tts=[SONIC, FLASH], faults={"tts0": [rule]}) as house:
        wire = await opened(house)
        words = await wire.spoken("Good morning to all of you.", "How are you today?")
        whole = [word for word in words if "-" not in word]
        assert set(tones.words_of("good morning to all of you how are you today")) <= set(whole)
        assert "error" not in wire.kinds()
        await wire.close()


@pytest.mark.parametrize(
    ("kind", "code"), [(Kind.SERVER_ERROR, 502), (Kind.RATE_LIMITED, 429), (Kind.HANG, 504)]
)
async def test_when_nobody_speaks_there_is_one_error_and_the_end(
    tmp_path: Path, kind: Kind, code: int
) -> None:
    policy = {"mouth": {"deadlines": FAST}}
    faults = {"tts0": [Rule(kind=kind)]}
    async with speech(tmp_path, tts=[AURA], faults=faults, policy=policy) as house:
        wire = await opened(house)
        await wire.say("Good day.")
        error = await wire.until("error", "done")
        assert (error["type"], error["code"]) == ("error", code)
        assert error["request_id"] in error["message"]
        assert (await wire.next())["type"] == "closed"
        assert wire.kinds() == ["session.created", "error"]


async def test_an_interrupted_utterance_is_cancelled(tmp_path: Path) -> None:
    slow = Vendor("cartesia", "sonic-3", more={"pace": _rtf(1.0)})
    async with speech(tmp_path, tts=[slow]) as house:
        wire = await opened(house)
        await wire.say("One moment please while I look for that.", flush=False)
        await wire.until("output_audio")
        await wire.close()
        await until(lambda: len(house.attempts) == 1)
        [attempt] = house.attempts
        assert attempt.outcome == "cancelled"
        assert attempt.usage.characters
        assert house.gateway.house.plans.in_use == 0


def _rtf(rtf: float) -> Any:
    from trunkline.doubles import Pace

    return Pace(rtf=rtf)


async def test_audio_is_not_made_far_ahead_of_who_plays_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tts_line, "_LEAD_SECONDS", 2.0)
    policy = {"mouth": {"deadlines": {**FAST, "idle": 1.5}}}
    async with speech(tmp_path, tts=[SONIC], policy=policy) as house:
        wire = await opened(house)
        begun = now_ns()
        words = await wire.spoken("This is a sentence that takes much longer than five seconds.")
        took = (now_ns() - begun) / 1e9
        assert len(words) == 11  # the wait for the listener is no stall of the voice
        assert took >= len(wire.pcm) / 48000 - 2.5
        await wire.close()
        assert [a.outcome for a in house.attempts] == ["ok"]


async def test_a_client_that_never_reads_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tts_line, "_LEAD_SECONDS", 1e6)
    monkeypatch.setattr(websocket, "STALL_SECONDS", 0.5)
    async with speech(tmp_path, tts=[SONIC]) as house:
        wire = await opened(house)
        await wire.say(*["word " * 300 for _ in range(8)])
        await until(lambda: house.attempts, 30)
        assert house.attempts[0].outcome == "cancelled"
        wire.socket._response.close()


@pytest.mark.parametrize(
    ("limit", "kind"), [("_IDLE_SECONDS", "closed"), ("_TEXT_SECONDS", "error")]
)
async def test_sockets_do_not_idle_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, kind: str
) -> None:
    monkeypatch.setattr(tts, limit, 0.3)
    async with speech(tmp_path, tts=[SONIC]) as house:
        wire = await opened(house)
        if limit == "_TEXT_SECONDS":
            await wire.say("And then", flush=False)
        ended = await wire.until("error")
        assert (ended["type"], ended["code"]) == (kind, 408 if kind == "error" else 1001)
        await until(lambda: not house.gateway.house.plans.in_use)


async def test_pings_keep_a_waiting_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A language model that thinks for longer than a client waits: 10 s there, 1 s here."""
    import trunkline.gateway.server as server

    monkeypatch.setattr(server, "_PING_SECONDS", 0.2)
    async with speech(tmp_path, tts=[SONIC]) as house:
        wire = await opened(house)
        await wire.say("One.", flush=False)
        pings = 0
        monkeypatch.setattr(wire.socket, "_autoping", False)
        for _ in range(200):
            frame = await wire.socket.receive(timeout=1.0)
            pings += frame.type is aiohttp.WSMsgType.PING
            if pings == 4:
                break
        assert pings == 4
        await wire.close()


async def test_a_reload_reaches_the_next_utterance(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[SONIC, FLASH]) as house:
        wire = await opened(house)
        await wire.say("First one.", flush=False)
        await wire.until("output_audio")
        house.without("tts0/sonic-3")
        await wire.say("Still the first.")
        await wire.until("done")
        assert await wire.spoken("Another.") == ["another"]
        await wire.close()
        await until(lambda: len(house.attempts) == 2)
        assert [(a.connection, a.outcome) for a in house.attempts] == [
            ("tts0", "ok"),
            ("tts1", "ok"),
        ]


async def test_a_drain_lets_an_utterance_end(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[SONIC]) as house:
        idle, busy = await opened(house), await opened(house)
        await busy.say("Good day.", flush=False)
        await busy.until("output_audio")
        draining = asyncio.create_task(house.gateway.house.drain(20))
        assert (await idle.next())["code"] == 1001
        await busy.say("That is all.")
        assert (await busy.until("done"))["type"] == "done"
        assert tones.decode(busy.pcm, 24000) == tones.words_of("good day that is all")
        assert (await busy.next())["code"] == 1001
        assert await draining


REFUSED = [
    ("no credential", {"Authorization": ""}, "mouth", 401),
    ("an unknown key", {"Authorization": "Bearer nobody"}, "mouth", 401),
    ("an unknown model", {}, "cartesai/sonic", 404),
    ("a provider without a key", {}, "rime/mistv2", 404),
    ("a provider that has no voices", {}, "assemblyai/x", 404),
    ("a route for something else", {}, "ears", 404),
    ("traversal", {}, "tts0/../x", 404),
    ("control characters", {}, "tts0/x\r\nx", 404),
    ("an id that is none", {"X-LiveKit-Room-ID": "x" * 200}, "mouth", 400),
    ("another provider", {"X-LiveKit-Inference-Provider": "rime"}, "rime/mistv2", 404),
]


@pytest.mark.parametrize(
    ("headers", "model", "status"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
async def test_a_final_refusal_is_a_status_on_the_upgrade(
    tmp_path: Path, headers: dict[str, str], model: str, status: int
) -> None:
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA]) as house:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await house.connect("tts", model, headers)
        assert refused.value.status == status
        assert refused.value.headers
        assert refused.value.headers["x-request-id"]


@pytest.mark.parametrize("door", ["eot", "bargein"])
async def test_what_agents_do_without_is_not_found(tmp_path: Path, door: str) -> None:
    async with speech(tmp_path, tts=[SONIC]) as house:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await house.session.ws_connect(f"{house.url}/{door}", headers=AUTH)
        assert refused.value.status == 404


@pytest.mark.parametrize("model", ["", "NOT_GIVEN", "auto"])
async def test_the_model_may_come_with_the_first_message(tmp_path: Path, model: str) -> None:
    async with speech(tmp_path, tts=[SONIC]) as house:
        wire = await opened(house, model, model="mouth")
        assert await wire.spoken("Good day.") == ["good", "day"]
        await wire.close()


async def test_a_fallback_of_the_client_comes_after_the_model(tmp_path: Path) -> None:
    faults = {"tts0": [Rule(kind=Kind.SERVER_ERROR)]}
    fallback = {"models": [{"model": "tts1/eleven_flash_v2_5", "voice": "", "extra": {}}]}
    async with speech(tmp_path, tts=[SONIC, FLASH], faults=faults) as house:
        wire = await opened(house, "tts0/sonic-3", model="tts0/sonic-3", fallback=fallback)
        assert await wire.spoken("Good day.") == ["good", "day"]
        assert [a.connection for a in house.attempts] == ["tts0", "tts1"]
        await wire.close()


async def test_a_frame_that_is_too_large_ends_its_own_socket_alone(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[SONIC]) as house:
        one, other = await opened(house), await opened(house)
        with contextlib.suppress(ConnectionError):  # it may be cut while it still sends
            await one.socket.send_str("x" * (5 << 20))
        assert (await one.next())["type"] == "closed"
        assert await other.spoken("Good day.") == ["good", "day"]
        await other.close()
