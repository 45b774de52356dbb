"""flite, a small English synthesiser by CMU, in this process (Debian: libflite1).

Called through ctypes, which gives up the GIL, in one thread of its own: libflite promises no thread
safety and keeps the streaming callback on the voice, so that one thread is also its lock. A voice
makes speech some sixty times faster than real time, so sentences wait for each other only
briefly. The structures are those of flite 2.2 (``include/cst_wave.h``, ``cst_audio.h``).
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import os
import threading
import unicodedata
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor

from livekit.agents import APIConnectionError

from ..errors import MissingExtra, UnsupportedOption
from ._voice import LocalTTS

VOICES = {
    "slt": "cmu_us_slt",
    "rms": "cmu_us_rms",
    "awb": "cmu_us_awb",
    "kal16": "cmu_us_kal16",
}
"""Name by register function; all speak 16 kHz. (kal, 8 kHz, is left out.)"""
SAMPLE_RATE = 16_000
CHUNK_SAMPLES = 800

_CONTINUE, _STOP = 0, -1

_PUNCTUATION = str.maketrans("‘’‚“”„–—…", "'''\"\"\"-- ")


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    )


class _Voice(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("features", ctypes.c_void_p))


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.POINTER(_Wave),
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_void_p,
)


class _Streaming(ctypes.Structure):
    _fields_ = (
        ("min_buffsize", ctypes.c_int),
        ("callback", _Callback),
        ("utterance", ctypes.c_void_p),
        ("item", ctypes.c_void_p),
        ("userdata", ctypes.c_void_p),
    )


class TTS(LocalTTS):
    """flite as a LiveKit voice: 16 kHz mono; ``voice`` is slt, rms, awb or kal16.

    Raises MissingExtra without the library and UnsupportedOption for another voice.
    """

    def __init__(self, *, voice: str = "slt") -> None:
        if voice not in VOICES:
            raise UnsupportedOption(
                f"flite has no voice {voice!r}; it has {', '.join(sorted(VOICES))}"
            )
        _libraries(VOICES[voice])
        super().__init__(provider="flite", voice=voice, sample_rate=SAMPLE_RATE)

    def prewarm(self) -> None:
        _thread(os.getpid()).submit(_speaker, VOICES[self._voice])

    async def pcm(self, text: str) -> AsyncGenerator[bytes]:
        plain = _ascii(text)
        if not any(character.isalnum() for character in plain):
            return
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        stopped = threading.Event()

        def on_chunk(chunk: bytes | None) -> None:
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except RuntimeError:  # the loop was closed while the thread still spoke
                stopped.set()

        voice = VOICES[self._voice]
        job = _thread(os.getpid()).submit(_synthesize, voice, plain, on_chunk, stopped)
        try:
            while (chunk := await chunks.get()) is not None:
                yield chunk
            job.result()
        finally:
            stopped.set()
            job.cancel()


def _ascii(text: str) -> str:
    """flite reads ASCII: accents go, typographic punctuation becomes plain, the rest is dropped."""
    decomposed = unicodedata.normalize("NFKD", text.translate(_PUNCTUATION))
    return decomposed.encode("ascii", "ignore").decode("ascii").strip()


@functools.cache
def _thread(pid: int) -> ThreadPoolExecutor:
    """The one thread that calls libflite in process ``pid``; a fork does not inherit it."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="flite")


@functools.cache
def _libraries(voice: str) -> tuple[ctypes.CDLL, ctypes.CDLL]:
    try:
        # The voices' libraries leave the symbols of the engine and the lexicon unresolved.
        for name in ("libflite.so.1", "libflite_cmulex.so.1", "libflite_usenglish.so.1"):
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL("libflite.so.1"), ctypes.CDLL(f"libflite_{voice}.so.1")
    except OSError as error:
        raise MissingExtra(
            "flite is not installed; install it with: apt-get install libflite1"
        ) from error


class _Speaker:
    """One voice of libflite, loaded. Used in the flite thread only."""

    def __init__(self, voice: str) -> None:
        flite, library = _libraries(voice)
        flite.flite_init()
        flite.flite_text_to_wave.restype = ctypes.POINTER(_Wave)
        flite.flite_text_to_wave.argtypes = (ctypes.c_char_p, ctypes.c_void_p)
        flite.delete_wave.argtypes = (ctypes.POINTER(_Wave),)
        flite.new_audio_streaming_info.restype = ctypes.POINTER(_Streaming)
        flite.audio_streaming_info_val.restype = ctypes.c_void_p
        flite.audio_streaming_info_val.argtypes = (ctypes.POINTER(_Streaming),)
        flite.flite_feat_set.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        register = library[f"register_{voice}"]
        register.restype = ctypes.POINTER(_Voice)
        register.argtypes = (ctypes.c_char_p,)

        self._flite = flite
        self._voice = register(None)
        self._on_chunk: Callable[[bytes | None], None] = lambda chunk: None
        self._stopped = threading.Event()
        self._callback = _Callback(self._on_audio)  # kept: libflite holds no reference
        streaming = flite.new_audio_streaming_info()
        streaming.contents.min_buffsize = CHUNK_SAMPLES
        streaming.contents.callback = self._callback
        value = flite.audio_streaming_info_val(streaming)
        flite.flite_feat_set(self._voice.contents.features, b"streaming_info", value)

    def speak(
        self, text: str, on_chunk: Callable[[bytes | None], None], stopped: threading.Event
    ) -> None:
        self._on_chunk, self._stopped = on_chunk, stopped
        wave = self._flite.flite_text_to_wave(text.encode("ascii"), self._voice)
        if not wave:
            raise APIConnectionError("flite made no audio", retryable=False)
        self._flite.delete_wave(wave)

    def _on_audio(
        self, wave: ctypes._Pointer[_Wave], start: int, size: int, last: int, streaming: int | None
    ) -> int:
        if self._stopped.is_set():
            return _STOP
        if size > 0:
            address = ctypes.addressof(wave.contents.samples.contents)
            self._on_chunk(ctypes.string_at(address + 2 * start, 2 * size))
        return _CONTINUE


@functools.cache
def _speaker(voice: str) -> _Speaker:
    return _Speaker(voice)


def _synthesize(
    voice: str, text: str, on_chunk: Callable[[bytes | None], None], stopped: threading.Event
) -> None:
    try:
        if not stopped.is_set():
            _speaker(voice).speak(text, on_chunk, stopped)
    finally:
        on_chunk(None)
