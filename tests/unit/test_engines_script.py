"""The scripted responder's rules: what it answers to what, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from trunkline.engines._script import Answer, Conversation, Script, ToolDone, answer
from trunkline.engines._script_file import DEEPEST, load
from trunkline.errors import UsageError

TOOLS = frozenset({"book_table"})
SCRIPT = """\
opening: Hello, I am a scripted assistant.
fallback: [Pardon]
slots:
  colour:
    values: {red: red, read: red}
    patterns: [{match: 'in {value}'}]
rules:
  - name: colour
    hears: ['\\bpaint\\b']
    says: ["In {colour}."]
"""


@pytest.fixture(scope="module")
def receptionist() -> Script:
    import trunkline

    return load(Path(trunkline.__file__).parent / "engines/scripts/receptionist.yaml")


def test_the_receptionist_opens_by_saying_that_it_is_scripted(receptionist: Script) -> None:
    opening = answer(receptionist, Conversation()).text
    assert "scripted demonstration assistant" in opening


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        (["what are your opening hours"], "open every day"),
        (["what are your opening our"], "open every day"),
        (["when do you close tomorrow"], "open every day"),
        (["tell me about the menu please"], "tomato soup"),
        (["are you a robot or a person"], "not a person"),
        (["i'd like to book a table"], "how many people"),
        (["i'd like to book a table for two"], "What time"),
        (["wait"], "listening"),
        (["thank you very much goodbye"], "Goodbye"),
        (["thank you"], "welcome"),
        (["hello"], "How can I help you"),
        (["he was not an ill disposed young man"], "scripted assistant"),
        ([""], "scripted assistant"),
    ],
)
def test_what_the_receptionist_says(receptionist: Script, turns: list[str], expected: str) -> None:
    assert expected in answer(receptionist, Conversation(turns, 1, offered=TOOLS)).text


@pytest.mark.parametrize(
    ("turns", "people", "time"),
    [
        (["i would like to book a table for two people at seven o'clock"], 2, "seven o'clock"),
        (["i would like to look a table for too people at seven o'clock"], 2, "seven o'clock"),
        (["but the cable for two people at seven o'clock"], 2, "seven o'clock"),
        (["table for for at half past eight please"], 4, "half past eight"),
        (["a table for five people at ate thirty"], 5, "half past eight"),
        (["book a table", "for six people", "at nine"], 6, "nine o'clock"),
        (["a table for two at seven", "wait actually make it three people"], 3, "seven o'clock"),
        (["a table for two at seven", "sorry make it eight o'clock"], 2, "eight o'clock"),
        (["a table for two at seven", "tell me about the menu", "actually three people"], 3,
         "seven o'clock"),
    ],
)  # fmt: skip
def test_a_booking_becomes_a_tool_call(
    receptionist: Script, turns: list[str], people: int, time: str
) -> None:
    reply = answer(receptionist, Conversation(turns, 1, offered=TOOLS))
    assert reply == Answer(tool="book_table", arguments={"people": people, "time": time})


def test_words_cut_in_two_turns_are_heard_as_one(receptionist: Script) -> None:
    turns = ["i would like to book", "a table for two at seven o'clock"]
    assert answer(receptionist, Conversation(turns, 2, offered=TOOLS)).tool == "book_table"


def test_without_the_tool_the_booking_is_only_said(receptionist: Script) -> None:
    reply = answer(receptionist, Conversation(["a table for two people at seven"], 1))
    assert reply.text.startswith("A table for 2 people at seven o'clock.")


@pytest.mark.parametrize(("failed", "expected"), [(False, "is booked"), (True, "could not be")])
def test_the_outcome_of_the_tool_is_told(receptionist: Script, failed: bool, expected: str) -> None:
    done = ToolDone("book_table", '{"people": 2, "time": "nine"}', "anything", failed)
    reply = answer(receptionist, Conversation(["a table"], 0, done))
    assert expected in reply.text
    assert "2 people at nine" in reply.text


def test_a_strangers_tool_output_is_said_as_it_is(receptionist: Script) -> None:
    done = ToolDone("weather", "not json", "It rains.")
    assert answer(receptionist, Conversation(["weather"], 0, done)).text == "It rains."


def test_a_script_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(SCRIPT)
    script = load(path)
    assert answer(script, Conversation(["paint it in read"], 1)).text == "In red."
    assert answer(script, Conversation(["sing"], 1)).text == "Pardon"


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("    says:", "    sez:", 10, "sez"),
        ('["In {colour}."]', "[7]", 10, "rules[0].says[0]"),
        ('["In {colour}."]', "[]", 10, "rules[0].says"),
        ("{colour}", "{color}", 10, "no slot 'color'"),
        ("paint", "(paint", 9, "not a regular expression"),
        ("in {value}", "in colour", 6, "{value}"),
        ("hears", "call: paint\n    hears", 9, "no tool 'paint'"),
        ("fallback: [Pardon]", "fallback: [Pardon", 3, "not valid YAML"),
        ("opening: Hello", "open: Hello", 1, "open"),
        ("fallback: [Pardon]", "fallback: &a [*a]", 2, "aliases"),
        ("[Pardon]", "[" * 5000, 2, f"nested over {DEEPEST}"),
        ("[Pardon]", "[Pardon]\ntiming: {first_token_ms: -1}", 3, "timing.first_token_ms"),
    ],
)
def test_a_mistake_names_file_line_and_key(
    tmp_path: Path, old: str, new: str, line: int, told: str
) -> None:
    path = tmp_path / "mistaken.yaml"
    path.write_text(SCRIPT.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        load(path)
    text = str(caught.value)
    assert f"{path}, line {line}" in text
    assert told in text
    assert "\n" not in text


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\x00", b"x" * 300_000, b"[1, 2]", None])
def test_what_is_no_script_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "script.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"script\.yaml") as caught:
        load(path)
    assert "\n" not in str(caught.value)
