"""espeak-ng, a formant synthesiser for over a hundred languages, as a program of its own.

espeak-ng is GPL-3, so it never enters this process: each piece of text is one run of the program,
text on its standard input, PCM from its standard output (start to first audio about 10 ms).
"""

from __future__ import annotations

import asyncio
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Coroutine
from typing import TypeVar

from livekit.agents import APIConnectionError, APIError

from ..errors import MissingExtra, UnsupportedOption
from ._voice import LocalTTS

SAMPLE_RATE = 22_050
"""What espeak-ng's own voices speak; the mbrola voices, which differ, are not offered."""
WAV_HEADER = 44
CHUNK_BYTES = 2 * SAMPLE_RATE // 10
STALL_SECONDS = 5.0

_T = TypeVar("_T")
_VOICE = re.compile(r"[a-z]{2,3}(-[a-z0-9]+)*(\+[a-z0-9_-]+)?", re.IGNORECASE)


class TTS(LocalTTS):
    """espeak-ng as a LiveKit voice: 22.05 kHz mono; ``voice`` as ``espeak-ng --voices`` lists it.

    Raises MissingExtra without the program and UnsupportedOption for what cannot be a voice's name.
    """

    def __init__(self, *, voice: str = "en-us") -> None:
        if not _VOICE.fullmatch(voice):
            raise UnsupportedOption(
                f"espeak voice {voice!r} is not a voice name such as en-us or en-gb+f3; "
                "`espeak-ng --voices` lists them"
            )
        program = shutil.which("espeak-ng")
        if program is None:
            raise MissingExtra(
                "espeak-ng is not installed; install it with: apt-get install espeak-ng"
            )
        self._program = program
        super().__init__(provider="espeak", voice=voice, sample_rate=SAMPLE_RATE)

    async def pcm(self, text: str) -> AsyncGenerator[bytes]:
        process = await self._start(text)
        assert process.stdout is not None
        try:
            await _soon(process.stdout.readexactly(WAV_HEADER))
            odd = b""
            while chunk := odd + await _soon(process.stdout.read(CHUNK_BYTES)):
                whole = len(chunk) & ~1
                odd = chunk[whole:]
                if whole:
                    yield chunk[:whole]
                elif process.stdout.at_eof():
                    break
            await _soon(process.wait())
        except asyncio.IncompleteReadError as error:
            raise APIError(
                f"espeak-ng has no voice {self._voice!r}, or failed to speak", retryable=False
            ) from error
        except TimeoutError as error:
            raise APIConnectionError(f"nothing from espeak-ng in {STALL_SECONDS:g} s") from error
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()  # to its end, which lets asyncio close the pipes

    async def _start(self, text: str) -> Process:
        arguments = ("-v", self._voice, "-b", "1", "--stdin", "--stdout")
        try:
            process = await asyncio.create_subprocess_exec(
                self._program, *arguments, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
            )
        except OSError as error:
            raise APIConnectionError("espeak-ng could not be started") from error
        assert process.stdin is not None
        # "[[" would begin espeak-ng's phoneme notation.
        process.stdin.write(text.replace("[[", "[ [").encode())
        process.stdin.close()
        return process


async def _soon(read: Coroutine[None, None, _T]) -> _T:
    async with asyncio.timeout(STALL_SECONDS):
        return await read
