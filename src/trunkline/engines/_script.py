"""A scripted conversation: rules read from YAML, and the answer they give to what was said so far.

Pure: no livekit, no clock, no randomness. The answer is a function of the conversation alone, so
the same conversation always gets the same answer. The format is described in
``docs/embedded-voice.md``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

import msgspec

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Texts = Annotated[list[_Text], msgspec.Meta(min_length=1)]
_Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=60_000)]


class _Part(msgspec.Struct, forbid_unknown_fields=True, frozen=True, dict=True):
    """A mapping of the script; unknown keys are errors. (``dict`` lets properties be cached.)"""


class Timing(_Part, frozen=True):
    """How fast the answer comes, in milliseconds."""

    first_token_ms: _Milliseconds = 0.0
    per_token_ms: _Milliseconds = 0.0


class Pattern(_Part, frozen=True):
    """A way to say a slot's value: a regular expression in which ``{value}`` is any known word."""

    match: _Text
    as_: str = msgspec.field(name="as", default="{value}")


class Slot(_Part, frozen=True):
    """Something to be learnt from the caller: words, what each stands for, and how it is said."""

    values: Annotated[dict[_Text, str | int], msgspec.Meta(min_length=1)]
    patterns: Annotated[list[Pattern], msgspec.Meta(min_length=1)]

    @cached_property
    def expressions(self) -> list[re.Pattern[str]]:
        words = "|".join(map(re.escape, sorted(self.values, key=len, reverse=True)))
        known = rf"\b(?P<value>{words})\b"
        return [_expression(pattern.match.replace("{value}", known)) for pattern in self.patterns]

    def find(self, text: str) -> str | int | None:
        """Return the value named in ``text``, by the first pattern that finds one."""
        for pattern, expression in zip(self.patterns, self.expressions, strict=True):
            if found := expression.search(text):
                value = self.values[found["value"].lower()]
                plain = pattern.as_ == "{value}"
                return value if plain else pattern.as_.replace("{value}", str(value))
        return None


class Tool(_Part, frozen=True):
    """A tool the script can call, and what is said around the call.

    ``needs``: for each slot that must be known first, the question that asks for it.
    ``arguments``: text with slots; a slot alone keeps its type. ``done`` and ``failed`` may also
    use the tool's ``{output}``.
    """

    needs: dict[_Text, _Text] = {}
    arguments: dict[_Text, str] = {}
    done: _Text = "{output}"
    failed: _Text = "I am sorry, that did not work."


class Rule(_Part, frozen=True):
    """What the caller may say, and what to answer.

    ``hears``: regular expressions, one of which must match. ``learns``: slots that must be named in
    this very turn. ``call``: a tool to call where it is offered. ``says``: the answer where no tool
    is called; of several, each turn takes the next.
    """

    name: _Text
    hears: _Texts
    says: _Texts
    learns: list[_Text] = []
    call: str | None = None

    @cached_property
    def expressions(self) -> list[re.Pattern[str]]:
        return [_expression(text) for text in self.hears]

    def matches(self, text: str, named: Mapping[str, str | int]) -> bool:
        heard = any(expression.search(text) for expression in self.expressions)
        return heard and all(slot in named for slot in self.learns)


class Script(_Part, frozen=True):
    """A whole script, as the YAML file holds it; the first rule that matches answers."""

    opening: _Text
    fallback: _Texts
    rules: Annotated[list[Rule], msgspec.Meta(min_length=1)]
    slots: dict[_Text, Slot] = {}
    tools: dict[_Text, Tool] = {}
    timing: Timing = Timing()


@dataclass(frozen=True, slots=True)
class ToolDone:
    """The outcome of a tool call that nobody has answered to yet."""

    tool: str
    arguments: str
    output: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a script looks at: each thing the caller said, which of them are unanswered, tools.

    ``turns`` are all of the caller's messages in order and ``fresh`` how many of the last of them
    came after the agent last spoke.
    """

    turns: Sequence[str] = ()
    fresh: int = 0
    done: ToolDone | None = None
    offered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Answer:
    """Words to say, or a tool to call with arguments."""

    text: str = ""
    tool: str = ""
    arguments: dict[str, str | int] = field(default_factory=dict)


def answer(script: Script, conversation: Conversation) -> Answer:
    """Return the script's answer to a conversation."""
    if conversation.done is not None:
        return _after_tool(script, conversation.done)
    if not conversation.turns:
        return Answer(script.opening)
    count = len(conversation.turns)
    said = " ".join(conversation.turns[count - max(conversation.fresh, 1) :])
    named = _slots(script, [said])
    rule = next((rule for rule in script.rules if rule.matches(said, named)), None)
    if rule is None:
        return Answer(_turn(script.fallback, count))
    known = _slots(script, conversation.turns) | named
    tool = script.tools[rule.call] if rule.call else None
    for slot, question in tool.needs.items() if tool else ():
        if slot not in known:
            return Answer(_fill(question, known))
    if tool and rule.call in conversation.offered:
        arguments = {name: _argument(text, known) for name, text in tool.arguments.items()}
        return Answer(tool=rule.call, arguments=arguments)
    return Answer(_fill(_turn(rule.says, count), known))


def _after_tool(script: Script, done: ToolDone) -> Answer:
    tool = script.tools.get(done.tool)
    if tool is None:
        return Answer(done.output or script.fallback[0])
    try:
        arguments = json.loads(done.arguments or "{}")
    except ValueError:  # a call that this script did not make; its outcome can still be said
        arguments = {}
    known = arguments if isinstance(arguments, dict) else {}
    return Answer(_fill(tool.failed if done.failed else tool.done, known | {"output": done.output}))


def _slots(script: Script, texts: Iterable[str]) -> dict[str, str | int]:
    """Return the slots named in the texts; the last mention counts."""
    known: dict[str, str | int] = {}
    for text in texts:
        for name, slot in script.slots.items():
            if (value := slot.find(text)) is not None:
                known[name] = value
    return known


def _turn(texts: Sequence[str], count: int) -> str:
    return texts[(count - 1) % len(texts)]


def _fill(template: str, known: Mapping[str, str | int]) -> str:
    return re.sub(r"\{(\w+)\}", lambda slot: str(known.get(slot[1], "")), template)


def _argument(template: str, known: Mapping[str, str | int]) -> str | int:
    alone = re.fullmatch(r"\{(\w+)\}", template)
    return known[alone[1]] if alone and alone[1] in known else _fill(template, known)


def _expression(text: str) -> re.Pattern[str]:
    return re.compile(text, re.IGNORECASE)
