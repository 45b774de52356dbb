"""Which options of a provider's plugin a client of a gateway may set.

Plugins are made for programs that own their keys: an option may say which host is sent the key,
which file is read, or how large a step of a loop is. Those are for the settings alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import UnsupportedOption

_ADDRESSES = ("_url", "_path", "_file", "_host", "_endpoint", "_info", "_proxy")
"""How the names of options end that lead somewhere, also those of plugins installed beside ours."""

_OWNERS = frozenset(
    {
        # who pays, where, and what is read there
        *("credentials", "project", "location", "directory", "endpoint", "proxy", "host", "token"),
        # how the plugin works inside, and what it is asked beside the reference
        *("api_version", "kwargs", "model_id", "tokenizer", "word_tokenizer", "text_pacing", "vad"),
        *("use_realtime", "use_streaming", "use_websocket", "websocket_protocol"),
        *("timeout", "max_retries", "max_connections", "idle_connection_timeout"),
        *("inactivity_timeout", "audio_chunk_duration_ms", "buffer_size_seconds"),
        # the form of audio, which is converted here
        *("sample_rate", "num_channels", "encoding", "audio_encoding", "audio_format"),
        *("output_format", "response_format"),
    }
)


def is_for_clients(option: str) -> bool:
    """Whether a client may set ``option``, if the plugin has it."""
    return option not in _OWNERS and not option.endswith(_ADDRESSES)


def check_for_clients(options: Iterable[str]) -> None:
    """Raise UnsupportedOption for the first one that is not for clients."""
    for option in options:
        if not is_for_clients(option):
            raise UnsupportedOption(
                f'"{option}" is not for clients to set; it belongs in trunkline.yaml, under the '
                "options of a candidate or of a provider"
            )
