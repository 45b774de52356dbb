"""The official LiveKit plugins, unmodified, as clients of the doubles."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, APIStatusError, llm, stt, tts
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT
from livekit.plugins import cartesia, deepgram, elevenlabs, openai

from trunkline.core.models import Usage
from trunkline.doubles import Double, Kind, Pace, Provider, Reply, Rule, ToolCall, tones

TEXT = "Good morning, how can I help you today? Just ask me"
WORDS = tones.words_of(TEXT)
SPEECH = tones.encode(TEXT, 16000).ljust(2 * 4 * 16000, b"\0")
"""Four seconds: the words, then silence."""
ONCE = APIConnectOptions(max_retry=0, timeout=30.0)
PATIENCE = 1.5
"""Seconds after which a client that has said nothing will say nothing."""


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


# -- clients: each gives the words that came out of a plugin ------------------------------------


async def listen(plugin: stt.STT, heard: list[str]) -> None:
    async with plugin.stream(conn_options=ONCE) as stream:
        for frame in frames(SPEECH):
            stream.push_frame(frame)
        stream.flush()
        async for event in stream:
            if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                heard += event.alternatives[0].text.split()
            if len(heard) >= len(WORDS):
                return


async def recognize(plugin: stt.STT, heard: list[str]) -> None:
    event = await plugin.recognize(frames(SPEECH), conn_options=ONCE)
    heard += event.alternatives[0].text.split()


async def stream_speech(plugin: tts.TTS, heard: list[str]) -> None:
    async with plugin.stream(conn_options=ONCE) as stream:
        stream.push_text(TEXT)
        stream.end_input()
        await play(stream, heard)


async def synthesize(plugin: tts.TTS, heard: list[str]) -> None:
    async with plugin.synthesize(TEXT, conn_options=ONCE) as stream:
        await play(stream, heard)


async def play(stream: AsyncIterator[tts.SynthesizedAudio], heard: list[str]) -> None:
    pcm, rate = bytearray(), 24000
    try:
        async for event in stream:
            pcm += bytes(event.frame.data)
            rate = event.frame.sample_rate
    finally:
        heard += tones.decode(bytes(pcm), rate)


async def chat(model: llm.LLM, heard: list[str]) -> None:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content=TEXT)
    said = ""
    try:
        async with model.chat(chat_ctx=context, conn_options=ONCE) as stream:
            async for chunk in stream:
                said += (chunk.delta and chunk.delta.content) or ""
    finally:
        heard += tones.words_of(said)


def frames(pcm: bytes, rate: int = 16000, milliseconds: int = 50) -> list[rtc.AudioFrame]:
    step = 2 * rate * milliseconds // 1000
    pieces = (pcm[at : at + step] for at in range(0, len(pcm), step))
    return [rtc.AudioFrame(piece, rate, 1, len(piece) // 2) for piece in pieces]


Plugin = Any  # an STT, an LLM or a TTS: they share nothing but their name and aclose
Client = Callable[[Plugin, list[str]], Awaitable[None]]


@dataclass(frozen=True)
class Door:
    """One way into a vendor: the plugin, the client that uses it, the endpoint it reaches."""

    provider: str
    endpoint: str
    client: Client
    plugin: Callable[[str, aiohttp.ClientSession], Plugin]

    def __str__(self) -> str:
        return f"{self.provider}-{self.endpoint}"


def _deepgram(kind: type[Plugin], path: str, **options: Any) -> Callable[..., Plugin]:
    return lambda url, http: kind(
        base_url=f"{url}{path}", api_key="key", http_session=http, **options
    )


def _openai(kind: type[Plugin], **options: Any) -> Callable[..., Plugin]:
    return lambda url, http: kind(base_url=f"{url}/v1", api_key="key", **options)


DOORS = [
    Door("openai", "chat", chat, _openai(openai.LLM)),
    Door("openai", "transcriptions", recognize, _openai(openai.STT)),
    Door("openai", "speech", synthesize, _openai(openai.TTS)),
    Door("deepgram", "listen", listen, _deepgram(deepgram.STT, "/v1/listen")),
    Door("deepgram", "flux", listen, _deepgram(deepgram.STTv2, "/v2/listen")),
    Door("deepgram", "prerecorded", recognize, _deepgram(deepgram.STT, "/v1/listen")),
    Door("deepgram", "speak", stream_speech, _deepgram(deepgram.TTS, "/v1/speak")),
    Door("deepgram", "flux_speak", stream_speech, _deepgram(deepgram.TTSv2, "/v2/speak")),
    Door("deepgram", "speak_rest", synthesize, _deepgram(deepgram.TTS, "/v1/speak")),
    Door("cartesia", "tts", stream_speech, _deepgram(cartesia.TTS, "")),
    Door("cartesia", "tts_bytes", synthesize, _deepgram(cartesia.TTS, "")),
    Door("cartesia", "stt_turns", listen, _deepgram(cartesia.STT, "")),
    Door("cartesia", "stt", listen, _deepgram(cartesia.STT, "", model="ink-whisper")),
    Door("elevenlabs", "tts", stream_speech, _deepgram(elevenlabs.TTS, "/v1")),
    Door("elevenlabs", "tts_stream", synthesize, _deepgram(elevenlabs.TTS, "/v1")),
    Door("elevenlabs", "scribe", recognize, _deepgram(elevenlabs.STT, "/v1")),
    Door(
        "elevenlabs",
        "scribe_realtime",
        listen,
        _deepgram(elevenlabs.STT, "/v1", model="scribe_v2_realtime"),
    ),
]


async def use(
    door: Door, double: Double, http: aiohttp.ClientSession, *, patience: float = 10.0
) -> tuple[list[str], str]:
    """The words that came, and how it ended: ``ok``, ``silence``, or the error's name."""
    plugin = door.plugin(double.url(door.provider), http)
    heard: list[str] = []
    try:
        async with asyncio.timeout(patience):
            await door.client(plugin, heard)
        return heard, "ok"
    except TimeoutError:
        return heard, "silence"
    except APIStatusError as error:
        return heard, f"{type(error).__name__} {error.status_code}"
    except APIError as error:
        return heard, type(error).__name__
    finally:
        await plugin.aclose()


@pytest.mark.parametrize("door", DOORS, ids=str)
async def test_every_word_comes_through_and_is_billed(
    door: Door, http: aiohttp.ClientSession
) -> None:
    async with Double.serve([door.provider]) as double:
        assert await use(door, double, http) == (WORDS, "ok")
        (line,) = double.bill
    assert (line.provider, line.endpoint) == (door.provider, door.endpoint)
    assert line.model
    units = line.units
    if door.client in (listen, recognize):
        assert units.audio_in_ns == 4_000_000_000
    elif door.client is chat:
        assert units == Usage(tokens_in=len(WORDS), tokens_out=len(WORDS))
    else:
        assert units.characters == len(TEXT)
        assert units.audio_out_ns == pytest.approx(3_300_000_000, rel=0.001)


NOTHING = {"silence", "APITimeoutError", "APIStatusError -1"}
"""What no answer looks like: for ever, or the plugin's own timeout (ElevenLabs wraps it)."""
LOST = {"APIConnectionError", "APIStatusError 1006"}
SYMPTOMS: dict[Kind, set[str]] = {
    Kind.REFUSE: {"APIConnectionError"},
    Kind.BLACK_HOLE: {*NOTHING, "APIConnectionError"},
    Kind.UNAUTHORIZED: {"APIStatusError 401"},
    Kind.PAYMENT_REQUIRED: {"APIStatusError 402"},
    Kind.RATE_LIMITED: {"APIStatusError 429"},
    Kind.SERVER_ERROR: {"APIStatusError 500"},
    Kind.HANG: {*NOTHING, "APIConnectionError"},
    Kind.HANG_AFTER: NOTHING,
    Kind.KEEP_ALIVE: NOTHING,
    Kind.DIE: LOST,
    Kind.STALL: NOTHING,
    Kind.END: {"ok", "APIStatusError 1000", "APIConnectionError"},
    Kind.TRUNCATE: {"ok", "silence"},
    Kind.EMPTY: {"ok", "silence", "APIError"},
    # Plugins skip lines that are not JSON, wait on for a transcript, or give up.
    Kind.GARBAGE: {"ok", *NOTHING, *LOST, "APIStatusError 400"},
    Kind.WRONG_RATE: {"ok"},
}
FREE = {Kind.REFUSE, Kind.BLACK_HOLE, Kind.HANG, *list(Kind)[2:6]}
SILENT = {*FREE, Kind.HANG_AFTER, Kind.KEEP_ALIVE, Kind.EMPTY}


@pytest.mark.parametrize("door", DOORS, ids=str)
async def test_every_fault_shows_its_symptom(door: Door, http: aiohttp.ClientSession) -> None:
    kinds = [
        k
        for k in SYMPTOMS
        if k is not Kind.WRONG_RATE or door.client in (stream_speech, synthesize)
    ]
    await asyncio.gather(*(strike(door, kind, http) for kind in kinds))


async def strike(door: Door, kind: Kind, http: aiohttp.ClientSession) -> None:
    rule = Rule(kind=kind, after=0 if door.client is recognize else 4, every=0.05)
    expected = SYMPTOMS[kind]
    if door.endpoint == "prerecorded" and kind in list(Kind)[2:6]:
        expected = {"APIConnectionError"}  # the plugin does not look at the status
    patience = PATIENCE if "silence" in expected else 60.0
    async with Double.serve([door.provider], faults=[rule]) as double:
        heard, how = await use(door, double, http, patience=patience)
        assert how in expected, f"{kind}: {how}"
        assert heard != WORDS, kind
        assert not heard or kind not in SILENT, kind
        assert bool(double.bill) == (kind not in FREE), kind
        assert all(log.fault == kind for log in double.requests)


async def test_a_drip_is_slow_and_loses_nothing(http: aiohttp.ClientSession) -> None:
    rule = Rule(kind=Kind.DRIP, every=0.05)
    async with Double.serve(["openai"], faults=[rule]) as double:
        begun = asyncio.get_running_loop().time()
        assert await use(DOORS[0], double, http) == (WORDS, "ok")
        assert asyncio.get_running_loop().time() - begun >= 0.05 * len(WORDS)


async def test_utterances_on_one_connection_are_requests_of_their_own(
    http: aiohttp.ClientSession,
) -> None:
    door = DOORS[6]
    rule = Rule(kind=Kind.DIE, after=3, nth=(2,))
    async with Double.serve(["deepgram"], faults=[rule]) as double:
        plugin = door.plugin(double.url("deepgram"), http)
        first: list[str] = []
        await stream_speech(plugin, first)
        with pytest.raises(APIStatusError):
            await stream_speech(plugin, [])
        whole, cut = double.bill
        await plugin.aclose()
    assert first == WORDS
    assert (whole.units.audio_out_ns, cut.units.audio_out_ns) == (3_300_000_000, 300_000_000)
    assert whole.request_id != cut.request_id


async def test_a_model_named_late_meets_its_rules(http: aiohttp.ClientSession) -> None:
    rules = [Rule(kind=Kind.DIE, model="sonic-2"), Rule(kind=Kind.STALL, model="other")]
    async with Double.serve(["cartesia"], faults=rules) as double:
        for model, outcome in (("sonic-3", "ok"), ("sonic-2", "die")):
            plugin = cartesia.TTS(
                base_url=double.url("cartesia"), api_key="k", http_session=http, model=model
            )
            heard: list[str] = []
            if outcome == "ok":
                await stream_speech(plugin, heard)
            else:
                with pytest.raises(APIError):
                    await stream_speech(plugin, heard)
            await plugin.aclose()
            assert double.requests[-1].outcome == outcome
            assert double.requests[-1].model == model


async def test_an_interrupted_utterance_is_billed_for_what_was_made(
    http: aiohttp.ClientSession,
) -> None:
    slow = Provider("cartesia", pace=Pace(rtf=1.0))
    async with Double.serve([slow]) as double:
        plugin = cartesia.TTS(base_url=double.url("cartesia"), api_key="k", http_session=http)
        async with plugin.stream(conn_options=ONCE) as stream:
            stream.push_text(TEXT)
            stream.end_input()
            await anext(aiter(stream))
        await plugin.aclose()
        await asyncio.sleep(0.05)
        (line,) = double.bill
        (log,) = double.requests
    assert log.outcome == "cancelled"
    assert line.units.characters == len(TEXT)
    assert 0 < line.units.audio_out_ns < 2_000_000_000


@pytest.mark.parametrize("door", [d for d in DOORS if d.endpoint == "tts"], ids=str)
async def test_words_are_aligned_with_their_audio(door: Door, http: aiohttp.ClientSession) -> None:
    async with Double.serve([door.provider]) as double:
        plugin = door.plugin(double.url(door.provider), http)
        if door.provider == "elevenlabs":
            plugin = elevenlabs.TTS(
                base_url=f"{double.url('elevenlabs')}/v1",
                api_key="key",
                http_session=http,
                encoding="pcm_24000",
            )
        told, pcm = [], bytearray()
        async with plugin.stream(conn_options=ONCE) as stream:
            stream.push_text(TEXT)
            stream.end_input()
            async for event in stream:
                told += event.frame.userdata.get(USERDATA_TIMED_TRANSCRIPT, [])
                pcm += bytes(event.frame.data)
        await plugin.aclose()
    starts = [word.start for word in tones.hear(bytes(pcm), 24000)]
    timed = [(tones.words_of(str(t)), t.start_time) for t in told if tones.words_of(str(t))]
    assert [word for words, _ in timed for word in words] == WORDS
    assert [at for _, at in timed] == pytest.approx(starts, abs=0.02)


@pytest.mark.parametrize(
    "door", [d for d in DOORS if d.endpoint in ("listen", "flux", "stt")], ids=str
)
async def test_words_heard_have_the_times_of_their_audio(
    door: Door, http: aiohttp.ClientSession
) -> None:
    spoken = [word.start for word in tones.hear(SPEECH, 16000)]
    starts: list[float] = []
    async with Double.serve([door.provider]) as double:
        plugin = door.plugin(double.url(door.provider), http)
        async with plugin.stream(conn_options=ONCE) as stream:
            for frame in frames(SPEECH):
                stream.push_frame(frame)
            stream.flush()
            async for event in stream:
                if event.type == stt.SpeechEventType.FINAL_TRANSCRIPT:
                    starts += [word.start_time for word in event.alternatives[0].words or []]
                if len(starts) == len(WORDS):
                    break
    assert starts == pytest.approx(spoken, abs=0.01)


@pytest.mark.parametrize(
    ("plugin", "client", "billed"),
    [
        (_openai(openai.STT, model="whisper-1"), recognize, Usage(audio_in_ns=4_000_000_000)),
        *(
            (
                _openai(openai.TTS, model="tts-1", response_format=form),
                synthesize,
                Usage(characters=len(TEXT), audio_out_ns=3_300_000_000),
            )
            for form in ("pcm", "wav", "mp3")
        ),
    ],
)
async def test_models_that_bill_no_tokens(
    plugin: Callable[..., Plugin], client: Client, billed: Usage, http: aiohttp.ClientSession
) -> None:
    door = Door("openai", "", client, plugin)
    async with Double.serve(["openai"]) as double:
        assert await use(door, double, http) == (WORDS, "ok")
        assert [line.units for line in double.bill] == [billed]


async def test_tool_calls_reach_the_plugin() -> None:
    reply = Reply(text="One moment.", tools=(ToolCall("weather", {"city": "Oslo"}), ToolCall("t")))
    async with Double.serve([Provider("openai", replies=(reply,))]) as double:
        model = openai.LLM(base_url=f"{double.url('openai')}/v1", api_key="key")
        context = llm.ChatContext.empty()
        context.add_message(role="user", content="What is the weather?")
        said = await model.chat(chat_ctx=context, conn_options=ONCE).collect()
        await model.aclose()
    assert said.text == "One moment."
    assert [(c.name, c.arguments) for c in said.tool_calls] == [
        ("weather", '{"city":"Oslo"}'),
        ("t", "{}"),
    ]
    assert said.usage is not None
    assert said.usage.prompt_tokens == 4


async def test_nova_says_when_speech_starts_pauses_and_ends(http: aiohttp.ClientSession) -> None:
    async with Double.serve(["deepgram"]) as double:
        url = f"{double.url('deepgram')}/v1/listen"
        query = "interim_results=true&vad_events=true&endpointing=100&utterance_end_ms=600"
        headers = {"Authorization": "Token key"}
        async with http.ws_connect(
            f"{url}?{query}&sample_rate=16000&model=nova-3", headers=headers
        ) as ws:
            for at in range(0, len(SPEECH), 3200):
                await ws.send_bytes(SPEECH[at : at + 3200])
            await ws.send_json({"type": "KeepAlive"})
            await ws.send_json({"type": "CloseStream"})
            told = [message.json() async for message in ws]
    kinds = [m["type"] for m in told]
    assert kinds[0] == "SpeechStarted"
    assert kinds[-2:] == ["UtteranceEnd", "Metadata"]
    results = [m for m in told if m["type"] == "Results"]
    assert [m["speech_final"] for m in results if m["is_final"]] == [True, True]
    assert results[0]["channel"]["alternatives"][0]["transcript"] == "good"
    assert told[-1]["duration"] == 4.0


async def test_real_speech_behind_the_protocol(http: aiohttp.ClientSession) -> None:
    pytest.importorskip("pocketsphinx")
    async with Double.serve([Provider("deepgram", engine="local")]) as double:
        voice = deepgram.TTS(
            base_url=f"{double.url('deepgram')}/v1/speak",
            api_key="key",
            http_session=http,
            sample_rate=16000,
        )
        async with voice.synthesize("Tell me when you are open tomorrow.") as stream:
            frame = await stream.collect()
        ear = DOORS[5].plugin(double.url("deepgram"), http)
        event = await ear.recognize([frame])
        await voice.aclose()
    assert "tomorrow" in event.alternatives[0].text
