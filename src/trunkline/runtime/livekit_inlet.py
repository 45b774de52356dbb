"""Audio past the channel of a recogniser's plugin, by the plugin's own socket.

A plugin takes each frame from a channel in a task of its own, cuts it to its size and sends it on.
Where the frame is of that size already, and the plugin waits for it with nothing left over, what
it would send is the frame as it is: then it is sent at once. The provider gets the same messages in
the same order. Everything else goes through the plugin: each flush, and the first frame of each
connection, with which a plugin may begin to count time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from livekit import rtc
from livekit.agents import stt

from .inlet_socket import InletSocket
from .livekit_compat import is_waiting, unread

_SIZES: Mapping[str, Callable[[Any], int]] = {
    "livekit.plugins.deepgram.stt": lambda options: options.sample_rate // 20,
    "livekit.plugins.assemblyai.stt": lambda options: (
        options.sample_rate // round(1 / options.buffer_size_seconds)
    ),
}
"""How many samples these plugins send at once, by their options. Others are not known here."""


class Inlet:
    """The short way into ``stream``, once its plugin has connected an InletSocket."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._socket: InletSocket | None = None
        self._size = self._rate = 0
        self._left = 0
        """What the plugin keeps of the frames before, in samples."""
        self._has_begun = False

    def opened(self, stream: stt.RecognizeStream) -> None:
        """Lead into ``stream``, which has just been made."""
        size = _SIZES.get(type(stream).__module__)
        if size is not None:
            self._stream = stream
            options = self._stream._opts
            self._size, self._rate = size(options), options.sample_rate

    def connected(self, socket: InletSocket) -> None:
        """Send by ``socket`` from now on: its plugin begins to cut anew."""
        self._socket, self._left, self._has_begun = socket, 0, False
        if self._size:
            for samples in unread(self._stream):
                self._passed(samples)

    def takes(self, frame: rtc.AudioFrame) -> bool:
        """Send ``frame``, if that is what the plugin would do next; else it is to be pushed."""
        if not self._size:
            return False
        samples, socket = frame.samples_per_channel, self._socket
        if (
            samples == self._size
            and self._has_begun
            and not self._left
            and socket is not None
            and frame.sample_rate == self._rate
            and frame.num_channels == 1
            and is_waiting(self._stream)
            and socket.send_now(frame.data.tobytes())
        ):
            if hasattr(self._stream, "_last_frame_sent_at"):  # assemblyai warns by it
                self._stream._last_frame_sent_at = time.time()
            return True
        self._passed(samples)
        return False

    def flushed(self) -> None:
        """Take note that a flush was pushed: with it the plugin sends what it keeps."""
        self._left = 0

    def _passed(self, samples: int | None) -> None:
        self._has_begun = self._has_begun or bool(samples)
        self._left = (self._left + samples) % self._size if samples else 0
