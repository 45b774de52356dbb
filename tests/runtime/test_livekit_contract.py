"""livekit-agents still has what ``runtime/livekit_compat.py`` takes hold of."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from livekit.agents import inference, llm, stt, tts
from livekit.agents.utils import aio

import trunkline.runtime.livekit_compat as compat
from trunkline import inference as door

PRIVATE = {
    compat.ChatStream: ("_event_ch", "_emit_error", "_run", "_llm_request_span"),
    compat.SpeechStream: (
        "_event_ch", "_input_ch", "_main_task", "_emit_error", "_started_time", "_tts",
        "_tts_request_span", "_pushed_text", "_tts_attempt_span_name",
    ),
    compat.TranscriptStream: (
        "_event_ch", "_input_ch", "_main_task", "_emit_error", "_pushed_sr", "_needed_sr",
        "_resampler", "_check_input_not_ended", "_check_not_closed",
    ),
    tts.TTS: ("_set_expressive", "_expressive", "_synthesize_with_stream"),
    tts.TTS.Markup: ("_provider_key",),
    stt.STT: ("_update_session_keyterms", "_push_conversation_item", "_recognize_impl"),
    stt.RecognizeStream: ("_task", "_input_ch"),
    aio.Chan: ("_queue",),
    llm.LLM: ("_prewarm_impl",),
}  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "name"), [(cls, name) for cls, names in PRIVATE.items() for name in names]
)
def test_private_part_exists(cls: type, name: str) -> None:
    """In the SDK's own class: as an attribute, or assigned in its source."""
    base = next(one for one in cls.__mro__ if one.__module__.startswith("livekit"))
    assert hasattr(base, name) or f"self.{name}" in inspect.getsource(base)


def test_every_private_part_of_the_streams_is_in_the_table() -> None:
    """What the module touches on ``self`` and the SDK has, the table above names."""
    tree = ast.parse(Path(compat.__file__).read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            cls = getattr(compat, node.name)
            touched = {
                sub.attr
                for sub in ast.walk(node)
                if isinstance(sub, ast.Attribute)
                and isinstance(sub.value, ast.Name)
                and sub.value.id == "self"
                and sub.attr.startswith("_")
            }
            assert touched <= set(PRIVATE[cls]), node.name


DOOR = {
    "STT": ("__init__", "from_model_string", "update_options", "stream"),
    "LLM": ("__init__", "from_model_string", "update_options", "chat"),
    "TTS": ("__init__", "from_model_string", "update_options", "stream", "synthesize"),
}


@pytest.mark.parametrize(
    ("cls", "method"), [(cls, method) for cls, methods in DOOR.items() for method in methods]
)
def test_signature_is_livekits(cls: str, method: str) -> None:
    """Name by name, kind by kind, default by default."""

    def shape(of: object) -> list[tuple[str, object, object]]:
        signature = inspect.signature(getattr(getattr(of, cls), method))
        return [(p.name, p.kind, p.default) for p in signature.parameters.values()]

    assert shape(door) == shape(inference)


def test_the_door_exports_all_of_livekits_module() -> None:
    assert set(inference.__all__) <= set(door.__all__)
    ours = {"STT", "LLM", "TTS", "llm_from_model_string"}
    for name in set(inference.__all__) - ours:
        assert getattr(door, name) is getattr(inference, name)
    for name in ("STT", "LLM", "TTS"):
        assert issubclass(getattr(door, name), getattr(inference, name))
