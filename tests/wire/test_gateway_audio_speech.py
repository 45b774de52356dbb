"""``POST /v1/audio/speech`` before doubles of the vendors."""

from __future__ import annotations

import asyncio
import base64
import struct
from pathlib import Path
from typing import Any

import pytest
from gateway_audio import FAST, RATE, error_of, events, played, say, served
from gateway_house import AUTH, until
from gateway_speech import AURA, FLASH, GPT, NOVA, SONIC, Vendor, speech

from trunkline.compose import Wanted
from trunkline.core.models import Modality, Purpose, Quality
from trunkline.doubles import Kind, Pace, Rule, tones
from trunkline.gateway.audio_encoding import TYPES
from trunkline.gateway.plans import Ask

SPEAKS = Vendor("openai", "gpt-4o-mini-tts", "/v1")
TEXT = "Good morning. How are you today?"
WORDS = ["good", "morning", "how", "are", "you", "today"]


@pytest.mark.parametrize("form", TYPES)
@pytest.mark.parametrize("events_too", [False, True])
async def test_every_format_can_be_played(tmp_path: Path, form: str, events_too: bool) -> None:
    async with speech(tmp_path, tts=[SONIC]) as house:
        way = {"stream_format": "sse"} if events_too else {}
        async with say(house, TEXT, response_format=form, **way) as response:
            assert response.status == 200
            assert response.headers["x-trunkline-model"] == "tts0/sonic-3"
            body = await response.read()
        if events_too:
            assert response.content_type == "text/event-stream"
            *deltas, done = events(body)
            assert done == {"type": "speech.audio.done"}
            assert {one["type"] for one in deltas} == {"speech.audio.delta"}
            body = b"".join(base64.b64decode(one["audio"]) for one in deltas)
        else:
            assert response.headers["content-type"].encode() == TYPES[form]
        assert tones.decode(played(body, form), RATE) == WORDS


async def test_mp3_is_what_comes_unasked_and_wav_says_what_it_is(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[SONIC]) as house:
        async with say(house, response_format=None) as response:
            assert response.content_type == "audio/mpeg"
            await response.read()
        async with say(house, response_format="wav") as response:
            head = (await response.read())[:44]
        assert struct.unpack("<HHIIHH", head[20:36]) == (1, 1, RATE, 2 * RATE, 2, 16)
        assert (head[:4], head[8:16], head[36:40]) == (b"RIFF", b"WAVEfmt ", b"data")


@pytest.mark.parametrize("form", TYPES)
async def test_audio_leaves_while_the_voice_still_speaks(tmp_path: Path, form: str) -> None:
    """The voice stops after a second of its audio, and what it said can be heard by then."""
    rule = Rule(kind=Kind.STALL, after=12)
    slow = {"policy": {"mouth": {"deadlines": {**FAST, "idle": 30}}}}
    async with speech(tmp_path, tts=[SONIC], faults={"tts0": [rule]}, **slow) as house:
        async with say(house, "One two three four five six.", response_format=form) as response:
            got = bytearray()
            async with asyncio.timeout(20):
                while tones.decode(played(bytes(got), form), RATE)[:1] != ["one"] if got else True:
                    got += await response.content.readany()
        assert not house.attempts
        await until(lambda: house.attempts)
        assert served(house) == ["tts0:cancelled"]


async def test_what_was_spoken_is_in_the_ledger_and_charged(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[SPEAKS]) as house:
        settled: list[Any] = []
        house.trunkline.on("settled", settled.append)
        async with say(house, TEXT) as response:
            pcm = await response.read()
        (settlement,) = settled
        attempt = settlement.attempt
        assert (attempt.modality, attempt.purpose) == (Modality.TTS, Purpose.SERVE)
        assert (attempt.connection, attempt.model) == ("tts0", "gpt-4o-mini-tts")
        assert (attempt.route, attempt.outcome) == ("mouth", "ok")
        assert attempt.usage.characters == len(TEXT)
        assert attempt.usage.audio_out_ns == pytest.approx(len(pcm) / 2 / RATE * 1e9, rel=0.05)
        assert attempt.identity.key == "bearer[0]"
        assert attempt.identity.session == response.headers["x-request-id"]
        assert settlement.entry.quality is Quality.EXACT
        assert (settlement.entry.charge is None) is (house.trunkline.price(attempt) is None)


async def test_names_are_those_of_the_settings(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[AURA], stt=[NOVA], llm=[GPT]) as house:
        for model in (
            "mouth",
            "default",
            "auto",
            None,
            "tts0/aura-2",
            "tts0",
            "tts0/aura-2:athena",
        ):
            async with say(house, "Yes.", model=model) as response:
                assert tones.decode(await response.read(), RATE) == ["yes"], model
        assert {a.model for a in house.attempts} == {"aura-2"}


async def test_wishes_go_to_those_who_understand_them(tmp_path: Path) -> None:
    """OpenAI's voices are named by every client; nobody else has them."""
    asked = Ask(
        Modality.TTS,
        Wanted("mouth"),
        wishes={"voice": "nova", "instructions": "Calmly.", "speed": 1.5},
    )
    async with speech(tmp_path, tts=[SPEAKS, FLASH, AURA]) as house:
        with house.gateway.house.plans.lease(asked) as plan:
            openai, flash, aura = plan.candidates
        assert openai.ref.suffix == "nova"
        assert openai.options == {"instructions": "Calmly.", "speed": 1.5}
        assert (flash.ref.suffix, flash.options) == ("", {})
        assert (aura.ref.suffix, aura.options) == ("", {"speed": 1.5})
        async with say(house, "Yes.", voice="nova", instructions="Calmly.", speed=1.5) as response:
            assert tones.decode(await response.read(), RATE) == ["yes"]


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"input": ""}, 400, "input", None),
        ({"input": "  \n"}, 400, "input", None),
        ({"input": None}, 400, None, None),
        ({"input": 7}, 400, "input", None),
        ({"input": "a" * 4097}, 400, "input", "string_above_max_length"),
        ({"response_format": "midi"}, 400, "response_format", None),
        ({"stream_format": "frames"}, 400, "stream_format", None),
        ({"speed": 4.1}, 400, "speed", None),
        ({"speed": "fast"}, 400, "speed", None),
        ({"speed": 1.5}, 400, "speed", None),
        ({"voice": {"name": "x"}}, 400, "voice", None),
        ({"voice": "../x"}, 404, "model", "model_not_found"),
        ({"voice": "v" * 300}, 400, "voice", None),
        ({"instructions": "x" * 5000}, 400, "instructions", None),
        ({"model": "nobody/sonic"}, 404, "model", "model_not_found"),
        ({"model": "tts0/../x"}, 404, "model", "model_not_found"),
        ({"model": "tts0/so\r\nnic"}, 404, "model", "model_not_found"),
        ({"model": "ears"}, 404, "model", "model_not_found"),
        ({"model": "x" * 300}, 400, "model", None),
    ],
)
async def test_a_wrong_request_has_one_clear_error(
    tmp_path: Path, fields: dict[str, Any], status: int, param: str | None, code: str | None
) -> None:
    async with speech(tmp_path, tts=[FLASH]) as house:
        text = fields.pop("input", "Yes.")
        async with say(house, text, **fields) as response:
            error = await error_of(response)
            assert (response.status, error["param"], error["code"]) == (status, param, code), error
        assert not house.attempts
        async with say(house, "Yes.") as response:
            assert tones.decode(await response.read(), RATE) == ["yes"]


@pytest.mark.parametrize(
    ("method", "body", "headers", "status"),
    [
        ("POST", b"{", AUTH, 400),
        ("POST", b"[]", AUTH, 400),
        ("POST", b"\xff\xfe", AUTH, 400),
        ("POST", b"a=b", {**AUTH, "Content-Type": "application/x-www-form-urlencoded"}, 400),
        ("POST", b"{}" + b" " * (1 << 20), AUTH, 413),
        ("GET", b"", AUTH, 405),
        ("POST", b"{}", {}, 401),
        ("POST", b"{}", {"Authorization": "Bearer no"}, 401),
    ],
)
async def test_what_is_no_request_is_refused(
    tmp_path: Path, method: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    async with speech(tmp_path, tts=[AURA]) as house:
        url = f"{house.url}/audio/speech"
        async with house.session.request(method, url, data=body, headers=headers) as response:
            assert response.status == status
            await error_of(response)


async def test_text_without_a_letter_is_a_moment_of_silence(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[AURA]) as house:
        async with say(house, "...") as response:
            pcm = await response.read()
        assert pcm == bytes(len(pcm))
        assert pcm
        assert not house.attempts


@pytest.mark.parametrize("kind", [Kind.HANG, Kind.HANG_AFTER, Kind.SERVER_ERROR, Kind.EMPTY])
async def test_a_voice_that_never_speaks_is_heard_by_nobody(tmp_path: Path, kind: Kind) -> None:
    fast = {"policy": {"mouth": {"deadlines": FAST}}}
    async with speech(tmp_path, tts=[SONIC, AURA], faults={"tts0": [Rule(kind=kind)]}, **fast) as h:
        async with say(h, TEXT) as response:
            assert response.headers["x-trunkline-model"] == "tts1/aura-2"
            assert tones.decode(await response.read(), RATE) == WORDS
        await until(lambda: len([a for a in h.attempts if a.purpose is Purpose.SERVE]) == 2)


@pytest.mark.parametrize("kind", [Kind.DIE, Kind.STALL, Kind.END])
@pytest.mark.parametrize("form", ["pcm", "mp3"])
async def test_a_voice_that_is_cut_is_continued_by_the_next(
    tmp_path: Path, kind: Kind, form: str
) -> None:
    fast = {"policy": {"mouth": {"deadlines": FAST}}}
    rules = [Rule(kind=kind, after=12)]
    async with speech(tmp_path, tts=[SONIC, AURA], faults={"tts0": rules}, **fast) as house:
        async with say(house, TEXT, response_format=form) as response:
            heard = tones.decode(played(await response.read(), form), RATE)
        # at the seam a word may have been begun twice, and none is left out
        assert [word for word in heard if not word.endswith("-")][-2:] == WORDS[-2:]
        assert [w for w in dict.fromkeys(heard) if w in WORDS] == WORDS
        await until(lambda: len([a for a in house.attempts if a.purpose is Purpose.SERVE]) == 2)


@pytest.mark.parametrize("events_too", [False, True])
async def test_when_nobody_goes_on_the_answer_has_no_end(tmp_path: Path, events_too: bool) -> None:
    fast = {"policy": {"mouth": {"deadlines": FAST}}}
    rules = [Rule(kind=Kind.DIE, after=12, nth=(1,)), Rule(kind=Kind.SERVER_ERROR)]
    way = {"stream_format": "sse"} if events_too else {}
    async with (
        speech(tmp_path, tts=[AURA], faults={"tts0": rules}, **fast) as house,
        say(house, TEXT, **way) as response,
    ):
        assert response.status == 200
        if events_too:
            *_, last = events(await response.read())
            assert last["error"]["request_id"] == response.headers["x-request-id"]
        else:
            with pytest.raises(Exception, match=r"[Pp]ayload"):
                await response.read()


@pytest.mark.parametrize(
    ("kind", "status"), [(Kind.RATE_LIMITED, 429), (Kind.SERVER_ERROR, 502), (Kind.HANG, 504)]
)
async def test_when_nobody_speaks_there_is_a_status(
    tmp_path: Path, kind: Kind, status: int
) -> None:
    fast = {"policy": {"mouth": {"deadlines": FAST}}}
    faults = {"tts0": [Rule(kind=kind)]}
    async with (
        speech(tmp_path, tts=[AURA], faults=faults, **fast) as house,
        say(house) as response,
    ):
        error = await error_of(response)
        assert response.status == status, error


async def test_a_client_that_leaves_ends_the_attempt(tmp_path: Path) -> None:
    text = "One two three four five six seven eight nine ten. " * 8
    async with speech(
        tmp_path, tts=[Vendor("cartesia", "sonic-3", more={"pace": Pace(rtf=1.0)})]
    ) as house:
        async with say(house, text) as response:
            await response.content.readexactly(9600)
            response.close()
        await until(lambda: house.attempts)
        assert served(house) == ["tts0:cancelled"]
        assert house.attempts[0].usage.characters == len(text)
        await until(lambda: not house.gateway.house.plans.in_use)


async def test_budgets_and_limits_are_asked_first(tmp_path: Path) -> None:
    minute = {"amount": {"requests": 1}, "per": "minute"}
    async with speech(tmp_path, tts=[AURA], limits={"few": minute}) as house:
        async with say(house) as response:
            await response.read()
        async with say(house) as response:
            error = await error_of(response)
            assert (response.status, error["type"]) == (429, "rate_limit_error")
            assert 0 < int(response.headers["retry-after"]) <= 60
        assert len(house.doubles["tts0"].requests) == 1


async def test_who_is_refused_hears_the_notice(tmp_path: Path) -> None:
    budget = {"window": "total", "amount": {"requests": 1}, "notice": "We are closed."}
    async with speech(tmp_path, tts=[AURA], budgets={"all": budget}) as house:
        for heard in (["good", "morning"], ["we", "are", "closed"]):
            async with say(house) as response:
                assert tones.decode(await response.read(), RATE) == heard


async def test_who_has_heard_one_voice_fail_keeps_the_other(tmp_path: Path) -> None:
    rule = Rule(kind=Kind.SERVER_ERROR, nth=(1,))
    async with speech(tmp_path, tts=[FLASH, AURA], faults={"tts0": [rule]}) as house:
        for _ in range(2):
            headers = {**AUTH, "X-LiveKit-Job-Id": "AJ_1"}
            body = {"model": "mouth", "input": "Yes.", "response_format": "pcm"}
            url = f"{house.url}/audio/speech"
            async with house.session.post(url, json=body, headers=headers) as response:
                assert tones.decode(await response.read(), RATE) == ["yes"]
        real = [a for a in house.attempts if a.purpose is Purpose.SERVE]
        assert [a.connection for a in real] == ["tts0", "tts1", "tts1"]
        assert {a.identity.call for a in real} == {"AJ_1"}
