"""LiveKit Inference's wire protocol as tables: what a client sends, and what it must be sent.

The protocol is what livekit-agents 1.2 to 1.8.9 and @livekit/agents 1.5 to 1.9 read and write
(``livekit/agents/inference`` and ``agents/src/inference``). A row is one of its rules, played over
a real socket; every message of every row has its place in the table of messages as well. What
comes of upgrades and requests is in ``test_gateway_conformance_http``.
"""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gateway_speech import FLASH, GPT, NOVA, SONIC, WHISPER, Vendor, Wire, heard, speech

from trunkline.doubles import tones
from trunkline.gateway import stt
from trunkline.runtime.loud_vad import LoudVAD

# What a client may be sent: the fields that must be there, then those that may.

Check = Callable[[Any], bool]


def text(value: Any) -> bool:
    return isinstance(value, str)


def number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def samples(value: Any) -> bool:
    """16-bit samples, in a message that no client refuses for its size."""
    return len(value) < 4 << 20 and len(base64.b64decode(value, validate=True)) % 2 == 0


def words_of(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    return lambda value: all(fits(word, required, optional) for word in value)


def fits(found: Any, required: Mapping[str, Check], optional: Mapping[str, Check]) -> bool:
    known = {**required, **optional}
    return required.keys() <= found.keys() <= known.keys() and all(
        known[name](value) for name, value in found.items()
    )


TIMED: dict[str, Check] = {"word": text, "start": number, "end": number}
TRANSCRIPT: tuple[dict[str, Check], dict[str, Check]] = (
    {"transcript": text, "request_id": text, "session_id": text},
    {
        "language": text,
        "start": number,
        "duration": number,
        "confidence": lambda value: number(value) and 0 <= value <= 1,
        "speaker_id": text,
        "words": words_of(TIMED, {"confidence": number, "speaker_id": text}),
        "extra": lambda value: text(value["served_by"]),
    },
)
ID: dict[str, Check] = {"session_id": text}
MESSAGES: dict[str, tuple[dict[str, Check], dict[str, Check]]] = {
    "session.created": (ID, {}),
    "session.finalized": ({}, {}),
    "session.closed": ({}, {}),
    "start_of_speech": ({}, {}),
    "interim_transcript": TRANSCRIPT,
    "preflight_transcript": TRANSCRIPT,
    "final_transcript": TRANSCRIPT,
    "output_audio": ({**ID, "audio": samples}, {}),
    "output_alignment": ({**ID, "words": words_of(TIMED, {})}, {}),
    "done": (ID, {}),
    "error": ({**ID, "message": text, "code": whole, "request_id": text}, {}),
}
MANY = {
    "interim_transcript",
    "preflight_transcript",
    "session.finalized",
    "output_audio",
    "output_alignment",
}
"""Of these there may be any number, or none."""


# What comes over a socket.

Frame = tuple[str, dict[str, Any]]


def frame(kind: str, **fields: Any) -> Frame:
    return kind, fields


def audio(pcm: bytes) -> list[Frame]:
    """Audio in pieces of 50 ms, as clients send it."""
    pieces = [pcm[at : at + 1600] for at in range(0, len(pcm), 1600)]
    return [frame("input_audio", audio=base64.b64encode(piece).decode()) for piece in pieces]


@dataclass(frozen=True)
class Rule:
    """``expected`` are the types that come, without those of MANY; ``closed`` is the end.

    ``model`` is that of the query, None for no query. ``holds`` says what else is so.
    """

    says: str
    frames: Sequence[Frame]
    expected: Sequence[str]
    model: str | None = ""
    holds: Callable[[Wire], bool] = lambda wire: True
    vendors: Mapping[str, Sequence[Vendor]] = field(default_factory=dict)


LISTEN = frame(
    "session.create",
    model="ears",
    settings={"sample_rate": "16000", "encoding": "pcm_s16le", "language": "en", "extra": {}},
    connection={"timeout": 10.0, "retries": 3},
)
SPEAK = frame(
    "session.create",
    model="mouth",
    sample_rate="24000",
    encoding="pcm_s16le",
    extra={},
    connection={"timeout": 10.0, "retries": 3},
)
FINALIZE, CLOSE, FLUSH = frame("session.finalize"), frame("session.close"), frame("session.flush")
HUM = struct.pack("<8000h", *(round(8000 * math.sin(at / 40)) for at in range(8000)))
GOOD_DAY = audio(heard("Good day."))
CLOSED = ["session.closed", "closed"]


def create(base: Frame, **fields: Any) -> Frame:
    """``base`` with other fields; None leaves one out."""
    merged = {**base[1], **fields}
    return base[0], {name: value for name, value in merged.items() if value is not None}


def settings(**fields: Any) -> Frame:
    return create(LISTEN, settings={**LISTEN[1]["settings"], **fields})


def sentence(words: str, **fields: Any) -> Frame:
    return frame("input_transcript", transcript=f"{words} ", **fields)


def heard_words(*words: str) -> Callable[[Wire], bool]:
    return lambda wire: wire.words() == list(words)


def said_words(*words: str, rate: int = 24000) -> Callable[[Wire], bool]:
    return lambda wire: tones.decode(wire.pcm, rate) == list(words)


HEARING = [
    Rule("the model may come with the first message alone", [LISTEN], ["session.created"], None),
    *[
        Rule(f"?model={name} is none", [create(LISTEN, model=None)], ["session.created"], name)
        for name in ("NOT_GIVEN", "auto")
    ],
    Rule("no model at all", [create(LISTEN, model=None)], ["session.created"], None),
    Rule("no settings", [frame("session.create", model="ears")], ["session.created"]),
    Rule("a rate is a text", [settings(sample_rate="24000")], ["session.created"]),
    Rule("a rate may be a number", [settings(sample_rate=16000)], ["session.created"]),
    Rule("extra may be null", [settings(extra=None)], ["session.created"]),
    *[
        Rule(
            f"a fallback's extra is {extra}",
            [create(LISTEN, fallback={"models": [{"model": "ears", "extra": extra}]})],
            ["session.created"],
        )
        for extra in (None, {})
    ],
    Rule(
        "turns end here",
        [LISTEN, *GOOD_DAY],
        ["session.created", "start_of_speech", "final_transcript"],
        holds=heard_words("good", "day"),
    ),
    Rule(
        "turns end here also for who takes recordings only",
        [LISTEN, *GOOD_DAY],
        ["session.created", "start_of_speech", "final_transcript"],
        holds=heard_words("good", "day"),
        vendors={"stt": [WHISPER]},
    ),
    Rule(
        "a turn without a word has a final without text",
        [LISTEN, *audio(HUM + bytes(48000))],
        ["session.created", "start_of_speech", "final_transcript"],
        holds=lambda wire: wire.finals()[0]["transcript"] == "",
        vendors={"stt": [WHISPER]},
    ),
    Rule(
        "two turns, times from the socket's first audio",
        [LISTEN, *GOOD_DAY, *audio(bytes(32000)), *GOOD_DAY],
        ["session.created", *["start_of_speech", "final_transcript"] * 2],
        holds=lambda wire: wire.finals()[1]["start"] > 2 and wire.words() == ["good", "day"] * 2,
    ),
    Rule(
        "words have their times",
        [LISTEN, *GOOD_DAY],
        ["session.created", "start_of_speech", "final_transcript"],
        holds=lambda wire: [w["word"] for w in wire.finals()[0]["words"]] == ["good", "day"],
    ),
    Rule(
        "an interim comes before the final",
        [LISTEN, *GOOD_DAY],
        ["session.created", "start_of_speech", "final_transcript"],
        holds=lambda wire: "interim_transcript" in wire.kinds(),
    ),
    Rule(
        "a finalize makes final what was said, and the stream goes on",
        [LISTEN, *audio(heard("Good day.", after=0.0)), FINALIZE, *audio(bytes(16000)), *GOOD_DAY],
        ["session.created", *["start_of_speech", "final_transcript"] * 2],
        holds=heard_words("good", "day", "good", "day"),
    ),
    Rule(
        "a finalize after which no audio comes is the end of the input",
        [LISTEN, *GOOD_DAY, FINALIZE],
        ["session.created", "start_of_speech", "final_transcript", *CLOSED],
    ),
    Rule("the same without a word", [LISTEN, FINALIZE], ["session.created", *CLOSED]),
    Rule(
        "silence has no transcript",
        [LISTEN, *audio(bytes(64000)), FINALIZE],
        ["session.created", *CLOSED],
    ),
    Rule("a close has no answer", [LISTEN, CLOSE], ["session.created", "closed"]),
    Rule("nor has one after a finalize", [LISTEN, FINALIZE, CLOSE], ["session.created", "closed"]),
    Rule("a close may be the first message", [CLOSE], ["closed"]),
    Rule(
        "options change in the stream",
        [
            LISTEN,
            *GOOD_DAY,
            frame("session.update", settings={"language": "de", "extra": {"keyterm": ["Oslo"]}}),
            *audio(bytes(32000)),
            *GOOD_DAY,
        ],
        ["session.created", *["start_of_speech", "final_transcript"] * 2],
        holds=heard_words("good", "day", "good", "day"),
    ),
    *[
        Rule(
            f"an update that cannot be is ignored: {changed}",
            [LISTEN, frame("session.update", settings=changed), *GOOD_DAY],
            ["session.created", "start_of_speech", "final_transcript"],
            holds=heard_words("good", "day"),
        )
        for changed in ({"model": "no/such"}, {"extra": {"agent_context": "Hello."}}, {})
    ],
    Rule(
        "a kind that is not known is ignored",
        [LISTEN, frame("session.later", data=1), *GOOD_DAY],
        ["session.created", "start_of_speech", "final_transcript"],
    ),
    Rule(
        "nothing comes after an error",
        [LISTEN, frame("input_audio", audio="*"), *GOOD_DAY, FINALIZE],
        ["session.created", "error", "closed"],
    ),
]

SPEAKING = [
    Rule("the model may come with the first message alone", [SPEAK], ["session.created"], None),
    *[
        Rule(f"?model={name} is none", [create(SPEAK, model=None)], ["session.created"], name)
        for name in ("NOT_GIVEN", "auto")
    ],
    Rule(
        "a sentence and a flush",
        [SPEAK, sentence("Good day.", generation_config={}, extra={}), FLUSH],
        ["session.created", "done"],
        holds=said_words("good", "day"),
    ),
    Rule(
        "the client of a year ago sends the text alone",
        [create(SPEAK, connection=None, extra=None), sentence("Good day."), FLUSH],
        ["session.created", "done"],
        holds=said_words("good", "day"),
    ),
    Rule("no fields at all", [frame("session.create")], ["session.created"]),
    Rule(
        "a sentence's options may be null",
        [SPEAK, sentence("Good day.", generation_config=None, extra=None), FLUSH],
        ["session.created", "done"],
        holds=said_words("good", "day"),
    ),
    Rule(
        "many sentences are one utterance",
        [SPEAK, *[sentence(f"Number {n}.") for n in (1, 2, 3)], FLUSH],
        ["session.created", "done"],
        holds=said_words("number", "1", "number", "2", "number", "3"),
    ),
    Rule(
        "one done for each flush, utterance after utterance, with the id of its session",
        [SPEAK, *[sentence("Yes."), FLUSH] * 3],
        ["session.created", "done", "done", "done"],
        holds=lambda wire: len({m["session_id"] for m in wire.seen}) == 1,
    ),
    Rule("a flush without text", [SPEAK, FLUSH, FLUSH], ["session.created", "done", "done"]),
    Rule(
        "a text without a word is some audio, as none would be a failure",
        [SPEAK, sentence("..."), FLUSH],
        ["session.created", "done"],
        holds=lambda wire: "output_audio" in wire.kinds(),
    ),
    *[
        Rule(
            f"audio comes at {rate} Hz",
            [create(SPEAK, sample_rate=str(rate)), sentence("Good day."), FLUSH],
            ["session.created", "done"],
            holds=said_words("good", "day", rate=rate),
        )
        for rate in (8000, 16000, 48000)
    ],
    Rule(
        "a language that the client always sends",
        [create(SPEAK, language="en"), sentence("Good day."), FLUSH],
        ["session.created", "done"],
        holds=said_words("good", "day"),
    ),
    Rule(
        "a sentence has the voice and the model that it asks for",
        [
            create(SPEAK, model="tts0/sonic-3", voice="one"),
            sentence("One.", generation_config={"model": "tts0/sonic-3", "voice": "two"}),
            sentence("Two.", generation_config={"model": "tts1/eleven_flash_v2_5", "voice": "x"}),
            FLUSH,
        ],
        ["session.created", "done"],
        holds=said_words("one", "two"),
        vendors={"tts": [SONIC, FLASH]},
    ),
    Rule(
        "a fallback's voice may be empty",
        [
            create(SPEAK, fallback={"models": [{"model": "mouth", "voice": "", "extra": {}}]}),
            sentence("Good day."),
            FLUSH,
        ],
        ["session.created", "done"],
    ),
    Rule(
        "word times come before their audio",
        [
            create(SPEAK, model="tts0/sonic-3", extra={"add_timestamps": True}),
            sentence("Good day.", extra={"add_timestamps": True}),
            FLUSH,
        ],
        ["session.created", "done"],
        holds=lambda wire: "output_alignment" in wire.kinds(),
    ),
    Rule("a close has no answer", [SPEAK, CLOSE], ["session.created", "closed"]),
    Rule(
        "nothing comes after an error",
        [SPEAK, frame("input_transcript", transcript=1), sentence("Good day."), FLUSH],
        ["session.created", "error", "closed"],
    ),
]


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stt, "voice_activity", LoudVAD)
    monkeypatch.setattr(stt, "_END_SECONDS", 0.5)


TOLD = [("stt", rule) for rule in HEARING] + [("tts", rule) for rule in SPEAKING]


@pytest.mark.parametrize(("door", "rule"), TOLD, ids=[f"{d}: {r.says}" for d, r in TOLD])
async def test_a_socket_keeps_the_rule(tmp_path: Path, door: str, rule: Rule) -> None:
    vendors = {"tts": [SONIC], "stt": [NOVA], "llm": [GPT], **rule.vendors}
    async with speech(tmp_path, **vendors) as house:  # type: ignore[arg-type]
        wire = await house.connect(door, *([""] if rule.model is None else [rule.model or None]))
        for kind, fields in rule.frames:
            await wire.send(kind, **fields)
        came: list[str] = []
        while came != list(rule.expected):
            kind = (await wire.next(30))["type"]
            if kind not in MANY:
                came.append(kind)
            assert came == list(rule.expected[: len(came)]), wire.seen
        assert rule.holds(wire), wire.seen
        for message in wire.seen:
            known = MESSAGES[message["type"]]
            assert fits({k: v for k, v in message.items() if k != "type"}, *known), message
        await wire.close()
