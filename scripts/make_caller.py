"""Make the demo's caller: ``caller.wav`` and its cue sheet ``caller.json``.

    python scripts/make_caller.py

Needs the ``flite`` command (Debian package ``flite``). The sentences are ones that a small
recogniser understands when this voice says them. The output is the same on every run.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import wave
from pathlib import Path

TARGET = Path(__file__).parents[1] / "src/trunkline/cli/demo"
VOICE = "rms"
RATE = 16_000
PAUSE = RATE // 2

# What is said, how many milliseconds after the agent's answer ended (the first: after the call was
# opened), and whether it is said into the agent's answer, counted from the answer's start.
LINES = (
    ("Hello, what are your opening hours?", 300, False),
    ("I would like to book a table for four people at nine o'clock.", 500, False),
    ("Tell me about the menu please.", 500, False),
    ("Sorry, change that to a table for six people.", 2000, True),
    ("That was all, thank you very much.", 500, False),
)


def main() -> None:
    audio = bytearray()
    sheet = []
    for text, after_ms, interrupts in LINES:
        start = len(audio) // 2
        audio += speak(text)
        sheet.append({"text": text, "start": start, "stop": len(audio) // 2, "after_ms": after_ms})
        if interrupts:
            sheet[-1]["interrupts"] = True
        audio += bytes(2 * PAUSE)
    with wave.open(str(TARGET / "caller.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes(bytes(audio))
    text = json.dumps({"voice": VOICE, "lines": sheet}, indent=2)
    (TARGET / "caller.json").write_text(text + "\n", encoding="utf-8")


def speak(text: str) -> bytes:
    """Return the sentence as 16 kHz mono 16-bit samples."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["flite", "-voice", VOICE, "-t", text, "-o", file.name], check=True)
        with wave.open(file.name) as spoken:
            if (spoken.getframerate(), spoken.getnchannels()) != (RATE, 1):
                raise SystemExit(f"flite's voice {VOICE} does not speak at {RATE} Hz mono")
            return spoken.readframes(spoken.getnframes())


if __name__ == "__main__":
    main()
