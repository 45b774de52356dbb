"""``POST /v1/audio/transcriptions`` before doubles of the vendors."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from gateway_audio import (
    FAST,
    WAYS,
    error_of,
    events,
    hear,
    recorded,
    served,
    spoken,
    words,
)
from gateway_house import AUTH, until
from gateway_speech import NOVA, WHISPER, Speech, Vendor, speech

from trunkline.compose import Wanted
from trunkline.core.models import Modality, Purpose, Quality
from trunkline.doubles import Kind, Rule
from trunkline.gateway import audio_recording, audio_transcriptions
from trunkline.gateway.plans import Ask
from trunkline.runtime.loud_vad import LoudVAD

SENTENCES = ("Good morning.", "How are you?", "The trains are late.")
WORDS = words(" ".join(SENTENCES))
PCM = spoken(*SENTENCES)
WAV = recorded(PCM, "wav")
SECONDS = len(PCM) / 2 / 24000
SCRIBE = Vendor("elevenlabs", "scribe_v2", "/v1")
EITHER = pytest.mark.parametrize("vendor", [NOVA, WHISPER], ids=lambda v: v.kind)


@pytest.mark.parametrize("form", WAYS)
@pytest.mark.parametrize("layout", ["mono", "stereo"])
async def test_any_container_is_heard(tmp_path: Path, form: str, layout: str) -> None:
    rate = 48000 if form in ("ogg", "webm") else 24000
    file = recorded(spoken("Good morning.", rate=rate), form, rate, layout)
    async with speech(tmp_path, stt=[WHISPER]) as house:
        async with hear(house, file, f"call.{form}") as response:
            assert response.status == 200
            assert response.headers["x-trunkline-model"] == "stt0/whisper-1"
            answer = await response.json()
        assert words(answer["text"]) == ["good", "morning"]


@EITHER
async def test_every_form_of_a_transcript(tmp_path: Path, vendor: Vendor) -> None:
    async with speech(tmp_path, stt=[vendor]) as house:
        said: dict[str, Any] = {}
        for form in ("json", "text", "verbose_json", "srt", "vtt"):
            asked = {"response_format": form, "timestamp_granularities": ["word", "segment"]}
            async with hear(house, WAV, **asked) as response:
                assert response.status == 200
                json = form.endswith("json")
                said[form] = await (response.json() if json else response.text())
        assert words(said["json"]["text"]) == WORDS
        assert said["json"].keys() == {"text", "usage"}
        assert said["json"]["usage"] == {"type": "duration", "seconds": int(SECONDS) + 1}
        assert words(said["text"]) == WORDS
        verbose = said["verbose_json"]
        assert words(verbose["text"]) == WORDS
        assert verbose["duration"] == pytest.approx(SECONDS, abs=0.05)
        segments = verbose["segments"]
        assert [one["id"] for one in segments] == list(range(len(segments)))
        times = [time for one in segments for time in (one["start"], one["end"])]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= SECONDS + 0.01
        assert words(" ".join(one["text"] for one in segments)) == WORDS
        if vendor is NOVA:
            assert words(" ".join(one["word"] for one in verbose["words"])) == WORDS
        arrow = re.compile(r"^(\d\d:\d\d:\d\d[,.]\d{3}) --> (\d\d:\d\d:\d\d[,.]\d{3})$", re.M)
        assert said["vtt"].startswith("WEBVTT\n\n")
        for form, mark in (("srt", ","), ("vtt", ".")):
            spans = arrow.findall(said[form])
            assert len(spans) == len(segments)
            assert all(mark in start and start <= end for start, end in spans)


@EITHER
async def test_a_stream_tells_the_words_as_they_come(tmp_path: Path, vendor: Vendor) -> None:
    async with speech(tmp_path, stt=[vendor]) as house:
        async with hear(house, WAV, stream="true") as response:
            assert response.content_type == "text/event-stream"
            *deltas, done = events(await response.read())
        assert {one["type"] for one in deltas} == {"transcript.text.delta"}
        assert done["type"] == "transcript.text.done"
        assert "".join(one["delta"] for one in deltas) == done["text"]
        assert words(done["text"]) == WORDS
        assert done["usage"]["seconds"] == int(SECONDS) + 1
        if vendor is NOVA:
            assert len(deltas) > 1


@EITHER
async def test_what_was_heard_is_in_the_ledger_and_charged(tmp_path: Path, vendor: Vendor) -> None:
    async with speech(tmp_path, stt=[vendor]) as house:
        settled: list[Any] = []
        house.trunkline.on("settled", settled.append)
        async with hear(house, WAV) as response:
            await response.read()
        (settlement,) = settled
        attempt = settlement.attempt
        assert (attempt.modality, attempt.purpose) == (Modality.STT, Purpose.SERVE)
        assert (attempt.connection, attempt.model) == ("stt0", vendor.model)
        assert (attempt.route, attempt.outcome) == ("ears", "ok")
        assert attempt.usage.audio_in_ns == pytest.approx(SECONDS * 1e9, rel=0.01)
        assert settlement.entry.quality is Quality.EXACT
        assert attempt.identity.key == "bearer[0]"
        assert attempt.identity.session == response.headers["x-request-id"]
        (line,) = house.doubles["stt0"].bill
        assert line.units.audio_in_ns == pytest.approx(attempt.usage.audio_in_ns, rel=0.01)


@EITHER
async def test_silence_has_no_words(tmp_path: Path, vendor: Vendor) -> None:
    async with (
        speech(tmp_path, stt=[vendor]) as house,
        hear(house, recorded(bytes(48000 * 2), "wav")) as response,
    ):
        assert (response.status, (await response.json())["text"]) == (200, "")


async def test_hints_go_to_those_who_understand_them(tmp_path: Path) -> None:
    async with speech(tmp_path, stt=[WHISPER, NOVA]) as house:
        asked = {"language": "en", "prompt": "Trains.", "temperature": "0.5", "include": ["x"]}
        async with hear(house, WAV, **asked) as response:
            assert words((await response.json())["text"]) == WORDS
        ask = Ask(Modality.STT, Wanted("ears", "en"), wishes={"prompt": "Trains."})
        with house.gateway.house.plans.lease(ask) as plan:
            assert [c.options for c in plan.candidates] == [{"prompt": "Trains."}, {}]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"file": None}, 400, "file"),
        ({"file": b""}, 400, "file"),
        ({"file": b"no recording at all" * 100}, 400, "file"),
        ({"file": bytes(5000)}, 400, "file"),
        ({"file": WAV[:44]}, 400, "file"),
        ({"file": recorded(PCM, "flac")[1000:]}, 400, "file"),
        ({"file": b"ffconcat version 1.0\nfile /etc/hostname\n"}, 400, "file"),
        ({"response_format": "docx"}, 400, "response_format"),
        ({"stream": "maybe"}, 400, "stream"),
        ({"temperature": "hot"}, 400, "temperature"),
        ({"temperature": "2"}, 400, "temperature"),
        ({"timestamp_granularities": ["letter"]}, 400, "timestamp_granularities"),
        ({"prompt": "x" * 70_000}, 400, "prompt"),
        ({"prompt": "x" * 5000}, 400, "prompt"),
        ({"model": "mouth"}, 404, "model"),
        ({"model": "nobody/x"}, 404, "model"),
        ({"model": "stt0/../x"}, 404, "model"),
        ({"language": "../en"}, 404, "model"),
    ],
)
async def test_a_wrong_request_has_one_clear_error(
    tmp_path: Path, fields: dict[str, Any], status: int, param: str
) -> None:
    async with speech(tmp_path, stt=[NOVA]) as house:
        file = fields.pop("file", WAV)
        async with hear(house, file, **fields) as response:
            error = await error_of(response)
            assert (response.status, error["param"]) == (status, param), error
        assert not house.attempts
        async with hear(house, WAV) as response:
            assert words((await response.json())["text"]) == WORDS


FORM = "multipart/form-data; boundary=xyz"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (WAV, "audio/wav", 415),
        (b"", "", 415),
        (b"--xyz", "multipart/form-data", 400),
        (b"", FORM, 400),
        (b"no form", FORM, 400),
        (b"--xyz\r\n", FORM, 400),
        (b'--xyz\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc', FORM, 400),
        (b"--xyz\r\nContent-Disposition: form-data\r\n\r\nabc\r\n--xyz--\r\n", FORM, 400),
        (b"--xyz\r\n\r\nabc\r\n--xyz--\r\n", FORM, 400),
        (
            b'--xyz\r\nContent-Disposition: form-data; name="model"\r\n\r\n\xff\r\n--xyz--\r\n',
            FORM,
            400,
        ),
        (
            b'--xyz\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 200 + b"--xyz--\r\n",
            FORM,
            400,
        ),
        (bytes(27 << 20), FORM, 413),
    ],
)
async def test_what_is_no_form_is_refused(
    tmp_path: Path, body: bytes, kind: str, status: int
) -> None:
    async with speech(tmp_path, stt=[NOVA]) as house:
        headers = {**AUTH, "Content-Type": kind}
        url = f"{house.url}/audio/transcriptions"
        async with house.session.post(url, data=body, headers=headers) as response:
            error = await error_of(response)
            assert response.status == status, error


async def test_hours_in_a_small_file_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_recording, "LONGEST_SECONDS", 60)
    async with (
        speech(tmp_path, stt=[NOVA]) as house,
        hear(house, recorded(bytes(48000 * 61), "flac")) as response,
    ):
        error = await error_of(response)
        assert (response.status, error["param"]) == (400, "file")
        assert "1 minute" in error["message"]


@pytest.mark.parametrize("kind", [Kind.HANG, Kind.HANG_AFTER, Kind.SERVER_ERROR, Kind.EMPTY])
@EITHER
async def test_a_recogniser_that_never_answers_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, vendor: Vendor
) -> None:
    monkeypatch.setattr(audio_transcriptions, "voice_activity", LoudVAD)  # tones are no speech
    fast = {"policy": {"ears": {"deadlines": FAST}}}
    second = NOVA if vendor is WHISPER else WHISPER
    faults = {"stt0": [Rule(kind=kind)]}
    async with speech(tmp_path, stt=[vendor, second], faults=faults, **fast) as house:
        async with hear(house, WAV) as response:
            assert response.headers["x-trunkline-model"].startswith("stt1/")
            assert words((await response.json())["text"]) == WORDS
        real = [a for a in house.attempts if a.purpose is Purpose.SERVE]
        assert [a.connection for a in real] == ["stt0", "stt1"]


async def asked_again(house: Speech) -> list[str]:
    """Ask often enough that who is blamed each time is asked no more; the texts."""
    texts = []
    for _ in range(8):
        async with hear(house, WAV) as response:
            assert response.status == 200
            texts.append((await response.json())["text"])
    return texts


@pytest.mark.parametrize("others", [0, 1])
async def test_what_nobody_has_a_word_for_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """A VAD takes much for speech, and a recogniser that hears none in it is right."""
    monkeypatch.setattr(audio_transcriptions, "voice_activity", LoudVAD)
    faults = {f"stt{place}": [Rule(kind=Kind.EMPTY)] for place in range(1 + others)}
    async with speech(tmp_path, stt=[WHISPER] * (1 + others), faults=faults) as house:
        assert await asked_again(house) == [""] * 8
        first = [a for a in served(house) if a.startswith("stt0")]
        assert first == ["stt0:empty_output" if others else "stt0:ok"] * 8


async def test_words_that_the_next_one_finds_prove_the_first_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio_transcriptions, "voice_activity", LoudVAD)
    faults = {"stt0": [Rule(kind=Kind.EMPTY)]}
    async with speech(tmp_path, stt=[WHISPER, WHISPER], faults=faults) as house:
        assert [words(text) for text in await asked_again(house)] == [WORDS] * 8
        real = [a for a in house.attempts if a.purpose is Purpose.SERVE]
        assert 0 < sum(a.connection == "stt0" for a in real) < 8, "then it is asked last"


@pytest.mark.parametrize("stream", ["true", "false"])
@pytest.mark.parametrize("kind", [Kind.DIE, Kind.STALL, Kind.END])
async def test_a_recogniser_that_is_cut_is_continued_by_the_next(
    tmp_path: Path, kind: Kind, stream: str
) -> None:
    fast = {"policy": {"ears": {"deadlines": FAST}}}
    faults = {"stt0": [Rule(kind=kind, after=6)]}
    async with speech(tmp_path, stt=[NOVA, WHISPER], faults=faults, **fast) as house:
        async with hear(house, WAV, stream=stream) as response:
            if stream == "true":
                *deltas, done = events(await response.read())
                assert "".join(one["delta"] for one in deltas) == done["text"]
            else:
                done = await response.json()
        assert words(done["text"]) == WORDS
        real = [a for a in house.attempts if a.purpose is Purpose.SERVE]
        first, second = real
        assert first.outcome != "ok"
        assert second.usage.audio_in_ns <= first.usage.audio_in_ns


async def test_when_nobody_goes_on_the_stream_ends_with_an_error(tmp_path: Path) -> None:
    fast = {"policy": {"ears": {"deadlines": FAST}}}
    rules = [Rule(kind=Kind.DIE, after=6, nth=(1,)), Rule(kind=Kind.SERVER_ERROR)]
    async with speech(tmp_path, stt=[NOVA], faults={"stt0": rules}, **fast) as house:
        async with hear(house, WAV, stream="true") as response:
            first, *_, last = events(await response.read())
        assert first["type"] == "transcript.text.delta"
        assert last["error"]["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("kind", "status"), [(Kind.RATE_LIMITED, 429), (Kind.SERVER_ERROR, 502), (Kind.HANG, 504)]
)
@EITHER
async def test_when_nobody_hears_there_is_a_status(
    tmp_path: Path, kind: Kind, status: int, vendor: Vendor
) -> None:
    fast = {"policy": {"ears": {"deadlines": FAST}}}
    faults = {"stt0": [Rule(kind=kind)]}
    async with (
        speech(tmp_path, stt=[vendor], faults=faults, **fast) as house,
        hear(house, WAV, stream="true") as response,
    ):
        error = await error_of(response)
        # a socket that does not open is a failed connection to the plugin
        assert response.status == (502 if kind is Kind.HANG and vendor is NOVA else status)
        assert error["type"] in ("server_error", "rate_limit_error")


@EITHER
async def test_a_client_that_leaves_ends_the_attempt(tmp_path: Path, vendor: Vendor) -> None:
    faults = {"stt0": [Rule(kind=Kind.HANG)]}
    slow = {"policy": {"ears": {"deadlines": {"connect": 30, "first_content": 30}}}}
    async with speech(tmp_path, stt=[vendor], faults=faults, **slow) as house:
        asking = asyncio.create_task(hear(house, WAV).__aenter__())
        await until(lambda: house.doubles["stt0"].requests)
        asking.cancel()
        await until(lambda: house.attempts)
        assert served(house) == ["stt0:cancelled"]
        await until(lambda: not house.gateway.house.plans.in_use)


async def test_budgets_and_limits_are_asked_first(tmp_path: Path) -> None:
    minute = {"amount": {"requests": 1}, "per": "minute"}
    async with speech(tmp_path, stt=[WHISPER], limits={"few": minute}) as house:
        async with hear(house, WAV) as response:
            assert response.status == 200
        async with hear(house, WAV) as response:
            error = await error_of(response)
            assert (response.status, error["type"]) == (429, "rate_limit_error")
            assert 0 < int(response.headers["retry-after"]) <= 60
        assert len(house.doubles["stt0"].requests) == 1


async def test_a_notice_lets_no_recording_through(tmp_path: Path) -> None:
    """A call is heard on until it is told; a recording has nobody to tell."""
    budget = {"window": "total", "amount": {"requests": 1}, "notice": "We are closed."}
    async with speech(tmp_path, stt=[WHISPER], budgets={"all": budget}) as house:
        for status in (200, 429, 429):
            async with hear(house, WAV) as response:
                assert response.status == status
        assert len(house.doubles["stt0"].requests) == 1


async def test_a_recording_longer_than_any_buffer_is_heard_whole(tmp_path: Path) -> None:
    numbers = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    file = recorded(spoken(*numbers, gap=9.0, rate=16000), "flac", 16000)
    async with speech(tmp_path, stt=[NOVA]) as house, hear(house, file) as response:
        assert words((await response.json())["text"]) == numbers
