"""Door 1 from the outside: what a name serves, what a parameter does, what a provider gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from livekit.agents import APIConnectOptions, llm, stt, tts
from livekit.agents import inference as livekit_inference
from plugins import frames
from switchboard import HEARD, Asked, Switchboard, ask, hear, say, settings, settled

import trunkline
from trunkline import inference
from trunkline.core.models import Purpose
from trunkline.errors import UsageError

AUDIO = frames(0.5)
SERVED = ("ok", "cancelled")
"""How an attempt ends that did its work: a recogniser's is cut off once it has been heard."""


@pytest.fixture
async def board(tmp_path: Path) -> AsyncIterator[Switchboard]:
    async with Switchboard() as board:
        settings(
            tmp_path,
            board.url,
            routes={
                "answer": {"modality": "llm", "candidates": ["openai/routed"]},
                "listen": {"modality": "stt", "candidates": ["deepgram/nova-2:fr"]},
                "speak": {"modality": "tts", "candidates": ["cartesia/sonic-2:lisa"]},
            },
            stacks={"desk": {"stt": "listen", "llm": "answer", "tts": "speak"}},
        )
        yield board
        await trunkline.aclose()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def used(thing: Any) -> str:
    """Use a recogniser, model or voice once; returns its text or the seconds of its sound."""
    try:
        if isinstance(thing, stt.STT):
            return await hear(thing, AUDIO)
        if isinstance(thing, llm.LLM):
            return await ask(thing)
        return f"{await say(thing):.1f} s"
    finally:
        await thing.aclose()


# -- names --------------------------------------------------------------------------------------

NAMES: list[tuple[str, str, str]] = [
    ("LLM", "openai/gpt-x", "openai/gpt-x"),
    ("LLM", "openai", "openai/gpt-4.1"),
    ("LLM", "groq/some/model:v2", "groq/some/model:v2"),
    ("LLM", "auto", "openai/gpt-4.1"),
    ("LLM", "answer", "openai/routed"),
    ("LLM", "desk", "openai/routed"),
    ("LLM", "local", "scripted/receptionist"),
    ("LLM", "scripted/receptionist", "scripted/receptionist"),
    ("STT", "deepgram/nova-3:de", "deepgram/nova-3"),
    ("STT", "deepgram", "deepgram/nova-3"),
    ("STT", "auto", "deepgram/nova-3"),
    ("STT", "listen", "deepgram/nova-2"),
    ("STT", "desk", "deepgram/nova-2"),
    ("STT", "local", "pocketsphinx/en-us"),
    ("TTS", "cartesia/sonic-3:katie", "cartesia/sonic-3"),
    ("TTS", "cartesia", "cartesia/sonic-3"),
    ("TTS", "auto", "cartesia/sonic-3"),
    ("TTS", "speak", "cartesia/sonic-2"),
    ("TTS", "desk", "cartesia/sonic-2"),
    ("TTS", "local", "flite/slt"),
    ("TTS", "flite/kal16", "flite/kal16"),
    ("TTS", "espeak", "espeak/en-us"),
]


@pytest.mark.parametrize(("kind", "name", "served"), NAMES)
async def test_a_name_serves(
    board: Switchboard, http: aiohttp.ClientSession, kind: str, name: str, served: str
) -> None:
    session = {} if kind == "LLM" else {"http_session": http}
    thing = getattr(inference, kind)(name, **session)
    records = settled()
    if name in ("local", "desk") and kind == "STT":
        assert thing.model == served.partition("/")[2]
        await thing.aclose()
        return
    assert await used(thing)
    (record,) = records
    assert record.attempt.outcome in SERVED
    assert f"{record.attempt.provider}/{record.attempt.model}" == served


@pytest.mark.parametrize("kind", ["STT", "LLM", "TTS"])
async def test_from_model_string_is_the_constructor(board: Switchboard, kind: str) -> None:
    thing = getattr(inference, kind).from_model_string("auto")
    assert type(thing) is getattr(inference, kind)
    await thing.aclose()


WRONG: list[tuple[str, str, str]] = [
    ("LLM", "opnai/gpt-4.1", 'unknown provider "opnai"; did you mean "openai"?'),
    ("LLM", "anser", '"anser" is no route, stack, provider or model; did you mean "answer"?'),
    ("LLM", "deepgram/nova-3", 'provider "deepgram" does not serve llm; it serves stt, tts'),
    ("STT", "answer", 'route "answer" is for llm, not for stt'),
    ("TTS", "anthropic/claude", 'provider "anthropic" does not serve tts; it serves llm'),
    ("LLM", "anthropic/claude", "providers.anthropic.api_key or the variable ANTHROPIC_API_KEY"),
    ("STT", "deepgram/", "model 'deepgram/' is not of the form provider/model[:suffix]"),
]


@pytest.mark.usefixtures("board")
@pytest.mark.parametrize(("kind", "name", "told"), WRONG)
async def test_a_wrong_name_is_one_sentence(kind: str, name: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        getattr(inference, kind)(name)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


# -- parameters ---------------------------------------------------------------------------------

Effect = Callable[[list[Asked]], object]
GATEWAY = {"api_key": "gw-key", "api_secret": "gw-secret-of-thirty-two-characters"}


def body(name: str) -> Effect:
    return lambda asked: asked[0].body.get(name)


def query(name: str) -> Effect:
    return lambda asked: asked[0].query.get(name)


ACTS: list[tuple[str, str, dict[str, Any], Effect, object]] = [
    ("STT", "model", {"model": "deepgram/nova-2"}, query("model"), "nova-2"),
    ("STT", "language", {"language": "de"}, query("language"), "de"),
    ("STT", "sample_rate", {"sample_rate": 8000}, query("sample_rate"), "8000"),
    ("STT", "extra_kwargs", {"extra_kwargs": {"keyterm": ["Kit"]}}, query("keyterm"), "Kit"),
    ("STT", "encoding", {"encoding": "pcm_s16le"}, query("encoding"), "linear16"),
    ("LLM", "model", {"model": "openai/gpt-x"}, body("model"), "gpt-x"),
    (
        "LLM",
        "provider",
        {"model": "openai/gpt-oss-120b", "provider": "groq"},
        lambda asked: (asked[0].path, asked[0].body["model"]),
        ("/groq/chat/completions", "openai/gpt-oss-120b"),
    ),
    ("LLM", "inference_class", {"inference_class": "low"}, body("service_tier"), "flex"),
    ("LLM", "extra_kwargs", {"extra_kwargs": {"temperature": 0.25}}, body("temperature"), 0.25),
    ("TTS", "model", {"model": "cartesia/sonic-2"}, body("model_id"), "sonic-2"),
    ("TTS", "voice", {"voice": "katie"}, body("voice"), {"mode": "id", "id": "katie"}),
    ("TTS", "language", {"language": "fr"}, body("language"), "fr"),
    (
        "TTS",
        "extra_kwargs",
        {"extra_kwargs": {"add_timestamps": False}},
        body("add_timestamps"),
        False,
    ),
]
FIRST = {"STT": {"model": "deepgram"}, "LLM": {"model": "openai"}, "TTS": {"model": "cartesia"}}


@pytest.mark.parametrize(
    ("kind", "given", "effect", "expected"),
    [pytest.param(k, g, e, x, id=f"{k}.{p}") for k, p, g, e, x in ACTS],
)
async def test_a_parameter_reaches_the_provider(
    board: Switchboard,
    http: aiohttp.ClientSession,
    kind: str,
    given: dict[str, Any],
    effect: Effect,
    expected: object,
) -> None:
    session = {} if kind == "LLM" else {"http_session": http}
    assert await used(getattr(inference, kind)(**{**FIRST[kind], **session, **given}))
    assert effect(board.asked) == expected


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("STT", {"encoding": "opus"}, "encoding 'opus' is not supported"),
    ("TTS", {"encoding": "opus"}, "encoding 'opus' is not supported"),
    ("STT", {"sample_rate": "16k"}, "sample_rate is 8000 to 192000 Hz, not '16k'"),
    ("TTS", {"sample_rate": 0}, "sample_rate is 8000 to 192000 Hz, not 0"),
    ("STT", {"extra_kwargs": {"keytrm": 1}}, 'no option "keytrm"; did you mean "keyterm"?'),
    ("LLM", {"extra_kwargs": {"temprature": 1}}, 'did you mean "temperature"?'),
    ("TTS", {"extra_kwargs": {"sped": 1}}, 'no option "sped"; did you mean "speed"?'),
    ("LLM", {"extra_kwargs": ["x"]}, "extra_kwargs is a dict of options by name, not list"),
    ("LLM", {"model": "ollama", "inference_class": "low"}, "inference_class 'low' means nothing"),
    ("LLM", {"model": "openai/x", "provider": "nobody"}, 'unknown provider "nobody"'),
    ("STT", {"fallback": [3]}, "a fallback that is no text is a dict"),
    ("STT", {"fallback": {"model": "deepgram", "voice": "x"}}, 'a fallback has no "voice"'),
    ("TTS", {"fallback": {"voice": "x"}}, "model is a text such as"),
    ("LLM", {"model": None}, "model is a text such as"),
    ("TTS", {"voice": 7}, "a voice or language is a text, not 7"),
    *((kind, {name: value}, f"{name} is the credential of a remote gateway")
      for kind in FIRST for name, value in GATEWAY.items()),
    *((kind, {"base_url": "https://gw.example/v1", "api_key": "k"}, "give its api_secret too")
      for kind in FIRST),
    *((kind, {"base_url": "https://gw.example/v1"}, "give its api_key too") for kind in FIRST),
    *((kind, {"base_url": "gw", **GATEWAY}, "base_url is a URL such as") for kind in FIRST),
]  # fmt: skip


@pytest.mark.usefixtures("board")
@pytest.mark.parametrize(("kind", "given", "told"), REFUSED)
async def test_what_cannot_act_is_refused_by_name(
    kind: str, given: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in GATEWAY.items():
        monkeypatch.setenv(f"LIVEKIT_{name.upper()}", value)
    with pytest.raises(UsageError) as caught:
        getattr(inference, kind)(**{**FIRST[kind], **given})
    assert told in str(caught.value)
    assert GATEWAY["api_secret"] not in str(caught.value)


PROVEN_BELOW = {
    "STT": {"base_url", "api_key", "api_secret", "http_session", "fallback", "conn_options", "vad"},
    "LLM": {"base_url", "api_key", "api_secret", "prompt_cache_breakpoints"},
    "TTS": {"base_url", "api_key", "api_secret", "http_session", "fallback", "conn_options"}
    | {"encoding", "sample_rate"},
}


@pytest.mark.parametrize("kind", ["STT", "LLM", "TTS"])
def test_every_parameter_is_in_a_table(kind: str) -> None:
    import inspect

    parameters = set(inspect.signature(getattr(inference, kind).__init__).parameters) - {"self"}
    tabled = {name for k, name, *_ in ACTS if k == kind}
    assert parameters == tabled | PROVEN_BELOW[kind]


async def test_a_voice_speaks_at_the_rate_that_was_asked_for(board: Switchboard) -> None:
    voice = inference.TTS("flite/slt", sample_rate=8000)
    assert voice.sample_rate == 8000
    async with voice.synthesize("Good morning.") as stream:
        rates = {audio.frame.sample_rate async for audio in stream}
    assert rates == {8000}
    await voice.aclose()


@pytest.mark.parametrize(
    ("kind", "first", "fallback", "expected"),
    [
        ("STT", "deepgram/away", "deepgram/nova-2:es", {"model": "nova-2", "language": "es"}),
        ("STT", "deepgram/away",
         [{"model": "deepgram/nova-3", "extra_kwargs": {"keyterm": ["Kit"]}}],
         {"model": "nova-3", "keyterm": "Kit"}),
        ("TTS", "cartesia/away", "cartesia/sonic-2:lisa", {"model_id": "sonic-2"}),
        ("TTS", "cartesia/away",
         {"model": "cartesia/sonic-2", "voice": "lisa", "extra_kwargs": {"language": "es"}},
         {"model_id": "sonic-2", "language": "es", "voice": {"mode": "id", "id": "lisa"}}),
    ],
)  # fmt: skip
async def test_a_fallback_is_the_next_candidate(
    board: Switchboard,
    http: aiohttp.ClientSession,
    tmp_path: Path,
    kind: str,
    first: str,
    fallback: Any,
    expected: dict[str, Any],
) -> None:
    name = first.partition("/")[0]
    away = {"kind": name, "api_key": "a-key", "base_url": "http://127.0.0.1:9"}
    here = {"api_key": "a-key", "base_url": board.url}
    settings(tmp_path, board.url, providers={name: here, "gone": away})
    records = settled()
    thing = getattr(inference, kind)("gone", fallback=fallback, http_session=http)
    assert [c.connection for c in thing.plan.candidates] == ["gone", name]
    assert await used(thing)
    served = [r.attempt for r in records if r.attempt.purpose is Purpose.SERVE]
    told = [(attempt.connection, attempt.outcome in SERVED) for attempt in served]
    assert told == [("gone", False), (name, True)]
    (asked,) = board.asked
    given = asked.query if kind == "STT" else asked.body
    assert {key: given.get(key) for key in expected} == expected


async def test_connection_options_set_the_deadlines_and_retries(board: Switchboard) -> None:
    options = APIConnectOptions(max_retry=4, timeout=1.25, retry_interval=0.3)
    for thing in (
        inference.STT("deepgram", conn_options=options),
        inference.TTS("cartesia", conn_options=options),
    ):
        plan = thing.plan
        assert (plan.deadlines.connect, plan.deadlines.first_content) == (1.25, 1.25)
        assert (plan.retries, plan.retry_pause) == (4, 0.3)
        await thing.aclose()


async def test_a_vad_of_ones_own_ends_the_utterances_of_what_cannot_stream(
    board: Switchboard,
) -> None:
    asked = asyncio.Event()

    class Ears(livekit_inference.VAD):
        def stream(self) -> Any:
            asked.set()
            return super().stream()

    recogniser = inference.STT("openai/whisper-1", vad=Ears(model="silero"))
    assert not recogniser.plan.candidates[0].live.capabilities.streaming
    stream = recogniser.stream()
    for frame in AUDIO:
        stream.push_frame(frame)
    async with asyncio.timeout(30):
        await asked.wait()
    await stream.aclose()
    await recogniser.aclose()


async def test_breakpoints_are_sent_where_they_are_asked_for(board: Switchboard) -> None:
    context = llm.ChatContext.empty()
    context.add_message(role="system", content=["Be brief.", llm.CacheBreakpoint()])
    context.add_message(role="user", content="hello")
    for asked_for in (True, False):
        model = inference.LLM("openai/gpt-x", prompt_cache_breakpoints=asked_for)
        async with model.chat(chat_ctx=context) as stream:
            await stream.collect()
        await model.aclose()
    assert ["prompt_cache_breakpoint" in str(one.body) for one in board.asked] == [True, False]


# -- a gateway elsewhere ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["STT", "LLM", "TTS"])
async def test_a_gateway_gets_a_signed_request_and_its_own_credentials_only(
    board: Switchboard,
    http: aiohttp.ClientSession,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LIVEKIT_API_KEY", "foreign")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "foreign-secret")
    monkeypatch.setenv("OPENAI_ORG_ID", "foreign-org")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Foreign: yes")
    session = {} if kind == "LLM" else {"http_session": http}
    records = settled()
    name = "deepgram/nova-3" if kind == "STT" else "vendor/model"
    thing = getattr(inference, kind)(name, base_url=f"{board.url}/v1", **GATEWAY, **session)
    assert await used(thing) in (HEARD, "At your service.", "0.1 s")
    (asked,) = board.asked
    claims = jwt.decode(
        asked.headers["authorization"].removeprefix("Bearer "),
        GATEWAY["api_secret"],
        algorithms=["HS256"],
    )
    assert claims["iss"] == GATEWAY["api_key"]
    assert claims["inference"] == {"perform": True}
    assert "foreign" not in str(asked.headers)
    assert asked.query.get("model", asked.body.get("model")) == name
    (record,) = records
    assert record.attempt.outcome in SERVED
    assert record.attempt.connection == "remote:127.0.0.1"
    assert record.entry.charge is None


async def test_a_gateway_is_told_of_new_options_and_so_is_the_ledger(board: Switchboard) -> None:
    records = settled()
    model = inference.LLM("vendor/one", base_url=f"{board.url}/v1", **GATEWAY)
    await ask(model)
    model.update_options(model="vendor/two", extra_kwargs={"temperature": 0.5})
    await ask(model)
    await model.aclose()
    assert [one.body["model"] for one in board.asked] == ["vendor/one", "vendor/two"]
    assert board.asked[1].body["temperature"] == 0.5
    assert [record.attempt.model for record in records] == ["vendor/one", "vendor/two"]
    assert {record.attempt.provider for record in records} == {"remote:127.0.0.1"}


async def test_closing_closes_the_client_of_a_gateway(board: Switchboard) -> None:
    model = inference.LLM("vendor/one", base_url=f"{board.url}/v1", **GATEWAY)
    await model.aclose()
    assert model._remote is not None
    assert model._remote._client.is_closed()


async def test_a_class_of_one_chat_cannot_go_to_a_gateway(board: Switchboard) -> None:
    model = inference.LLM("vendor/one", base_url=f"{board.url}/v1", **GATEWAY)
    with pytest.raises(UsageError, match="give it to the constructor"):
        model.chat(chat_ctx=llm.ChatContext.empty(), inference_class="low")
    await model.aclose()


# -- update_options -----------------------------------------------------------------------------

UPDATES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("LLM", {"model": "openai/gpt-y"}, {"model": "gpt-y"}),
    ("LLM", {"extra_kwargs": {"top_p": 0.5}}, {"model": "gpt-4.1", "top_p": 0.5}),
    ("STT", {"model": "deepgram/nova-2:es"}, {"model": "nova-2", "language": "es"}),
    ("STT", {"language": "fr"}, {"model": "nova-3", "language": "fr"}),
    ("STT", {"extra": {"keyterm": ["Kit"]}}, {"model": "nova-3", "keyterm": "Kit"}),
    ("TTS", {"model": "cartesia/sonic-2"}, {"model_id": "sonic-2"}),
    ("TTS", {"voice": "lisa"}, {"model_id": "sonic-3", "voice": {"mode": "id", "id": "lisa"}}),
    ("TTS", {"language": "it"}, {"language": "it"}),
    ("TTS", {"extra_kwargs": {"speed": 1.2}}, {"model_id": "sonic-3"}),
]


@pytest.mark.parametrize(("kind", "change", "expected"), UPDATES)
async def test_new_options_act_at_the_next_utterance(
    board: Switchboard,
    http: aiohttp.ClientSession,
    kind: str,
    change: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    session = {} if kind == "LLM" else {"http_session": http}
    thing = getattr(inference, kind)(**FIRST[kind], **session)
    await (ask(thing) if kind == "LLM" else say(thing) if kind == "TTS" else hear(thing, AUDIO))
    thing.update_options(**change)
    assert await used(thing)
    before, after = (one.query if kind == "STT" else one.body for one in board.asked)
    assert {key: after.get(key) for key in expected} == expected
    assert before != after


async def test_a_refused_change_leaves_everything_as_it_was(board: Switchboard) -> None:
    model = inference.LLM("openai/gpt-x")
    with pytest.raises(UsageError):
        model.update_options(extra_kwargs={"temprature": 1})
    with pytest.raises(UsageError):
        model.update_options(model="nobody/x")
    assert await ask(model)
    await model.aclose()
    assert board.asked[0].body["model"] == "gpt-x"


# -- types, stacks, listeners -------------------------------------------------------------------


@pytest.mark.usefixtures("board")
async def test_the_classes_are_livekits() -> None:
    desk = trunkline.stack("desk")
    assert list(desk) == ["stt", "llm", "tts"]
    assert dict(**desk).keys() == {"stt", "llm", "tts"}
    for member, kind, theirs in (
        (desk["stt"], stt.STT, livekit_inference.STT),
        (desk["llm"], llm.LLM, livekit_inference.LLM),
        (desk["tts"], tts.TTS, livekit_inference.TTS),
    ):
        assert isinstance(member, kind)
        assert isinstance(member, theirs)
    with pytest.raises(KeyError):
        desk["vad"]
    await desk.aclose()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: trunkline.stack("dsk"), 'did you mean "desk"?'),
        (lambda: trunkline.stack(3), "not 3"),
        (lambda: trunkline.stack("desk", tags="vip"), "tags is a list of texts, not 'vip'"),
        (lambda: trunkline.stack("desk", tags=[1]), "tags is a list of texts, not [1]"),
        (lambda: trunkline.on("setled", print), 'there is no event "setled"'),
        (lambda: trunkline.on("settled", None), "cannot be called"),
        (lambda: trunkline.configure(7), "config is the path of a file or directory, not 7"),
        (lambda: trunkline.configure(state=""), "state is the path of a file or directory"),
        (lambda: trunkline.configure("nowhere.yaml"), "nowhere.yaml: does not exist"),
    ],
)
async def test_a_wrong_argument_is_one_sentence(
    board: Switchboard, call: Callable[[], object], told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert told in str(caught.value)


async def test_a_listener_hears_until_it_stops_and_never_harms(board: Switchboard) -> None:
    heard: list[Any] = []
    model = inference.LLM("openai/gpt-x")
    stop = trunkline.on("settled", heard.append)
    trunkline.on("settled", lambda _: 1 / 0)
    await ask(model)
    stop()
    stop()
    assert await ask(model)
    await model.aclose()
    assert len(heard) == 1
