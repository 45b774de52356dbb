"""livekit-agents still has what ``runtime/livekit_compat.py`` takes hold of."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from pathlib import Path

import pytest
from livekit import plugins
from livekit.agents import inference, llm, stt, tts
from livekit.agents.utils import aio
from livekit.plugins.cartesia._recognize_streams.auto_finalize_recognize_stream import (
    AutoFinalizeRecognizeStream,
)

import trunkline
import trunkline.runtime.livekit_compat as compat
from trunkline import inference as door

PRIVATE = {
    compat.ChatStream: ("_event_ch", "_emit_error", "_run", "_llm_request_span"),
    compat.SpeechStream: (
        "_event_ch", "_input_ch", "_main_task", "_emit_error", "_started_time", "_tts",
        "_tts_request_span", "_pushed_text", "_tts_attempt_span_name", "_event_aiter",
        "_monitor_aiter",
    ),
    compat.TranscriptStream: (
        "_event_ch", "_input_ch", "_main_task", "_emit_error", "_pushed_sr", "_needed_sr",
        "_resampler", "_check_input_not_ended", "_check_not_closed",
    ),
    tts.TTS: ("_set_expressive", "_expressive", "_synthesize_with_stream"),
    tts.TTS.Markup: ("_provider_key",),
    stt.STT: ("_update_session_keyterms", "_push_conversation_item", "_recognize_impl"),
    stt.RecognizeStream: (
        "_task", "_input_ch", "_event_ch", "_event_aiter", "_metrics_task",
        "_metrics_monitor_task",
    ),
    aio.Chan: ("_queue", "_gets"),
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


def private_names(tree: ast.AST, own: bool = False) -> set[str]:
    """Attributes with an underscore that are used or defined; with ``own`` on ``self`` alone."""
    found = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (not own or (isinstance(node.value, ast.Name) and node.value.id in ("self", "owner")))
    }
    found |= {
        n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def test_elsewhere_only_what_livekits_own_plugins_use_is_inherited() -> None:
    """Names such as ``_run`` and ``_event_ch`` are private by spelling; plugins have no others."""
    files = [path for root in plugins.__path__ for path in Path(root).rglob("*.py")]
    interface = set().union(*(private_names(ast.parse(path.read_text())) for path in files))
    assert {"_run", "_event_ch"} <= interface
    touched: dict[str, set[str]] = {}
    for info in pkgutil.walk_packages(trunkline.__path__, "trunkline."):
        if info.name == compat.__name__ or ".migrations" in info.name or "__main__" in info.name:
            continue
        module = importlib.import_module(info.name)
        for cls in vars(module).values():
            if not inspect.isclass(cls) or cls.__module__ != info.name:
                continue
            theirs = [b for b in cls.__mro__ if b.__module__.startswith("livekit")]
            if theirs:
                source = "".join(inspect.getsource(base) for base in theirs)
                names = private_names(ast.parse(textwrap.dedent(inspect.getsource(cls))), own=True)
                inherited = names & private_names(ast.parse(textwrap.dedent(source)))
                if inherited - interface:
                    touched[f"{info.name}.{cls.__name__}"] = inherited - interface
    assert touched == {}


def test_the_plugin_that_makes_up_finals_is_still_to_be_watched() -> None:
    """What ``watch_turn_ends`` takes hold of, and that a final follows what it has counted."""
    stream = AutoFinalizeRecognizeStream
    source = inspect.getsource(stream._process_stream_event)
    assert all(name in source for name in ('"turn.end"', "_speaking", "_current_transcript"))
    assert "self._process_stream_event(data)" in inspect.getsource(stream._run)


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
