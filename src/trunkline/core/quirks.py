"""How OpenAI-compatible providers depart from OpenAI, as data for the catalogue's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ParameterRule:
    """Chat parameters that models whose name starts with ``prefix`` answer with HTTP 400.

    ``taken_without_reasoning`` are those of them that are taken when ``reasoning_effort`` is
    ``none``.
    """

    prefix: str
    params: frozenset[str]
    taken_without_reasoning: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ChatQuirks:
    """The departures of one chat completions endpoint; the defaults are OpenAI itself.

    ``stream_options`` is off where asking for usage is refused. ``strict_tools`` is off where
    ``strict`` in a tool's schema is refused. ``extra_content`` is off where a message that carries
    another vendor's ``extra_content`` is refused. ``max_tokens_field`` is the only name under
    which a limit on the answer is understood, None when both names are. ``think_tags`` enclose
    reasoning inside the visible text, None when that never happens. ``rules`` are the parameters
    that some models refuse; the first rule that matches counts.
    """

    stream_options: bool = True
    strict_tools: bool = True
    extra_content: bool = True
    max_tokens_field: str | None = None
    think_tags: tuple[str, str] | None = ("<think>", "</think>")
    rules: tuple[ParameterRule, ...] = ()

    def accepted(self, model: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """``params`` without those that ``model`` refuses.

        One that is meant for every candidate of a plan must not fail the one that refuses it.
        """
        for rule in self.rules:
            if model.startswith(rule.prefix):
                refused = rule.params
                if params.get("reasoning_effort") == "none":
                    refused = rule.params - rule.taken_without_reasoning
                return {name: value for name, value in params.items() if name not in refused}
        return params
