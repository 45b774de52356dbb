"""The reference pages that come from code itself: its commands, its events, its errors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import typer.main
from typer.core import TyperOption

from trunkline import errors
from trunkline.cli.app import app
from trunkline.core.events import (
    AttemptRefused,
    BudgetReached,
    EventName,
    Failover,
    HealthChanged,
)
from trunkline.core.models import Attempt, Charge, Deadlines, Entry, Identity, Settlement, Usage

NOTE = "<!-- Written by scripts/reference.py; change the table it reads, not this page. -->"


def commands_page() -> str:
    lines = [
        "# Commands",
        "",
        NOTE,
        "",
        "| Status | Meaning |",
        "|---|---|",
        "| 0 | done |",
        "| 1 | it did not work, or a call was not answered |",
        "| 2 | the input cannot be used: one sentence for each mistake says why |",
        "| 130 | interrupted |",
        "| 141 | whoever read the output has gone |",
        "",
        f"Before any command: {_options(typer.main.get_command(app))}.",
        "",
    ]
    for name, command in _commands(typer.main.get_command(app), "trunkline"):
        lines += [f"## `{name}`", "", command.help or "", ""]
        rows = [_parameter(one) for one in command.params]
        if rows:
            lines += ["| Argument | Default | Meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _options(group: Any) -> str:
    told = [
        f"`{one.opts[0]}` ({_sentence(one.help)})"
        for one in group.params
        if isinstance(one, TyperOption)
    ]
    return ", ".join(told)


def _parameter(one: Any) -> str:
    if isinstance(one, TyperOption):
        names = ", ".join(f"`{name}`" for name in one.opts)
        value = "" if one.is_flag else f" `{one.metavar or one.type.name.upper()}`"
        default = "" if one.default is None or one.is_flag else f"`{one.default}`"
        return f"| {names}{value} | {default} | {_sentence(one.help)} |"
    needed = "required" if one.required else ""
    return f"| `{(one.metavar or one.name).upper()}` | {needed} | {_sentence(one.help)} |"


def _sentence(help_text: str | None) -> str:
    """The text of an option without its full stop, for a table's cell."""
    text = (help_text or "").removesuffix(".")
    return text[:1].lower() + text[1:]


WHEN: dict[EventName, tuple[type, str]] = {
    EventName.SETTLED: (Settlement, "an attempt has ended, whatever its purpose and outcome"),
    EventName.LATE: (Settlement, "a provider tells more usage of an attempt that was settled"),
    EventName.FAILOVER: (Failover, "an attempt has failed and another one begins"),
    EventName.DEGRADED: (HealthChanged, "a candidate is no longer offered to calls"),
    EventName.RECOVERED: (HealthChanged, "a candidate is offered again"),
    EventName.BUDGET: (BudgetReached, "a threshold of a budget is reached"),
    EventName.REFUSED: (AttemptRefused, "a budget or limit does not allow an attempt"),
}


def events_page() -> str:
    lines = [
        "# Events",
        "",
        NOTE,
        "",
        "`trunkline.on(name, callback)` calls back with one object for each event of this process, "
        "and returns a function that ends it. A callback must not block. What it raises is logged "
        "and hurts nobody. `degraded` and `recovered` may come from another thread, when another "
        "process found out: `remote` is true then. `budget` comes from another thread.",
        "",
        "| Name | Told when | Brings |",
        "|---|---|---|",
    ]
    for name in EventName:
        brings, when = WHEN[name]
        lines.append(f"| `{name}` | {when} | [{brings.__name__}](#{brings.__name__.lower()}) |")
    for kind in (
        Failover,
        HealthChanged,
        BudgetReached,
        AttemptRefused,
        Settlement,
        Attempt,
        Identity,
        Entry,
        Usage,
        Charge,
    ):
        lines += ["", f"## {kind.__name__}", "", _prose(kind), "", "| Field | Type |", "|---|---|"]
        lines += [f"| `{name}` | {_type_name(of)} |" for name, of in _fields(kind)]
    return "\n".join([*lines, ""])


def _fields(kind: type) -> Iterator[tuple[str, str]]:
    for name, annotation in kind.__annotations__.items():
        yield name, str(annotation)


def _type_name(annotation: str) -> str:
    """An annotation for readers: without the bounds of a column, None in words."""
    names = [name.strip().replace("Int64", "int") for name in annotation.split("|")]
    return " or ".join(f"`{name}`" for name in names)


def _prose(thing: type) -> str:
    """A docstring as Markdown: its paragraphs, each on one line, its literals as code."""
    text = (inspect.getdoc(thing) or "").replace("``", "`")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def errors_page() -> str:
    tree = re.search(r"^    TrunklineError.*?(?=\n\n)", errors.__doc__ or "", re.M | re.S)
    assert tree
    phases = [field.name for field in fields(Deadlines) if field.type == "float"]
    return "\n".join(
        [
            "# Errors",
            "",
            NOTE,
            "",
            "Everything that Trunkline raises is in `trunkline.errors`. Its text is one sentence "
            "for a person. It holds no credential and no words said in a call.",
            "",
            "```text",
            inspect.cleandoc(tree[0]),
            "```",
            "",
            "An agent sees LiveKit's errors, because a session knows those: `APIConnectionError` "
            "when all candidates failed, otherwise `APIStatusError`, `APITimeoutError` or "
            "`APIConnectionError` of the attempt that ended the request. None of them is "
            "retryable, because the retries have been made, and `__cause__` is the error below. "
            "A `UsageError` reaches whoever builds the object.",
            "",
            "## What a failed attempt means",
            "",
            "`remedy` says what can help: `retry` the same candidate, or `failover` to another. "
            "`blames` says whether it counts against the candidate's health, `served` whether the "
            "provider may have worked and so may charge. `outcome` is what the ledger calls it.",
            "",
            "| Error | Outcome | Remedy | Blames | Served | Meaning |",
            "|---|---|---|---|---|---|",
            *(_error_row(error) for error in errors.ProviderError.__subclasses__()),
            "",
            "## Outcomes of an attempt",
            "",
            "`ok`; `cancelled`, by whoever asked for it, as when the caller cuts in; `moved`, when "
            "a recogniser's stream goes on elsewhere because the plan has changed; or the outcome "
            f"of an error above. `<phase>_timeout` stands for one of: {_listed(phases)}.",
            "",
        ]
    )


def _error_row(error: type[errors.ProviderError]) -> str:
    outcome = error.outcome if "outcome" in vars(error) else "<phase>_timeout"
    blames, served = ("yes" if flag else "no" for flag in (error.blames, error.served))
    meaning = _prose(error).split("\n\n")[0]
    return (
        f"| `{error.__name__}` | `{outcome}` | {error.remedy} | {blames} | {served} | {meaning} |"
    )


def _listed(phases: list[str]) -> str:
    return ", ".join(f"`{phase}_timeout`" for phase in phases)
