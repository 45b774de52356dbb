"""Asking the two audio doors as any HTTP client does, and reading what comes back."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import av
import numpy as np
from gateway_house import AUTH
from gateway_speech import Speech

from trunkline.doubles import tones

RATE = 24000
FAST = {"connect": 2.0, "first_content": 1.0, "idle": 1.0}


def say(house: Speech, text: object = "Good morning.", **fields: Any) -> Any:
    """POST a request for speech; to be used with ``async with``. None leaves a field out."""
    body = {"model": "mouth", "input": text, "voice": "alloy", "response_format": "pcm", **fields}
    body = {name: value for name, value in body.items() if value is not None}
    return house.session.post(f"{house.url}/audio/speech", json=body, headers=AUTH)


def hear(house: Speech, file: bytes | None, name: str = "call.wav", **fields: Any) -> Any:
    """POST a recording; to be used with ``async with``. A list becomes a field ``name[]``."""
    form = aiohttp.FormData(default_to_multipart=True)
    if file is not None:
        form.add_field("file", file, filename=name)
    for key, value in {"model": "ears", **fields}.items():
        if isinstance(value, list):
            for one in value:
                form.add_field(f"{key}[]", one)
        else:
            form.add_field(key, value)
    return house.session.post(f"{house.url}/audio/transcriptions", data=form, headers=AUTH)


async def error_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The error of an answer, which is in OpenAI's form and has the request's id."""
    error: dict[str, Any] = (await response.json())["error"]
    assert {"message", "type", "param", "code", "request_id"} == error.keys()
    assert error["request_id"] == response.headers["x-request-id"]
    return error


def played(file: bytes, form: str) -> bytes:
    """The samples of a file in ``form``, at RATE."""
    if form == "pcm":
        return file
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    parts: list[Any] = []
    with av.open(io.BytesIO(file), "r") as container:
        for frame in container.decode(audio=0):
            parts += resampler.resample(frame)
    parts += resampler.resample(None)
    return np.concatenate([part.to_ndarray().reshape(-1) for part in parts]).tobytes()


WAYS: Mapping[str, tuple[str, str]] = {
    "wav": ("wav", "pcm_s16le"),
    "mp3": ("mp3", "libmp3lame"),
    "ogg": ("ogg", "libopus"),
    "flac": ("flac", "flac"),
    "webm": ("webm", "libopus"),
    "m4a": ("mp4", "aac"),
    "aac": ("adts", "aac"),
}


def recorded(pcm: bytes, form: str, rate: int = 24000, layout: str = "mono") -> bytes:
    """``pcm`` (16 bit, mono) as a file of WAYS."""
    container, codec = WAYS[form]
    file = io.BytesIO()
    samples = np.frombuffer(pcm, np.int16)
    if layout == "stereo":
        samples = np.repeat(samples, 2)
    with av.open(file, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate = rate
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return file.getvalue()


def spoken(*sentences: str, gap: float = 1.0, rate: int = 24000) -> bytes:
    """Sentences in tones, with silence behind each."""
    silence = bytes(2 * round(gap * rate))
    return b"".join(tones.encode(sentence, rate) + silence for sentence in sentences)


def events(body: bytes) -> list[dict[str, Any]]:
    """The payloads of server-sent events."""
    parts = body.decode().split("\n\n")
    return [json.loads(one.removeprefix("data: ")) for one in parts if one.startswith("data: ")]


def words(text: str) -> list[str]:
    return tones.words_of(text)


def served(house: Speech) -> Sequence[str]:
    return [f"{a.connection}:{a.outcome}" for a in house.attempts]
