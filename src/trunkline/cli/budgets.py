"""``trunkline budgets`` and ``trunkline limits``: where they stand, and what they would do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..compose import Trunkline
    from ..core.budgets import Budget
    from ..core.limits import Limit
    from ..core.models import Candidate, Modality
    from ..core.ports import GateStore

_FLUSH_SECONDS = 5.0

Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings; default: ./trunkline.yaml."),
]
State = Annotated[
    Path | None, typer.Option(metavar="DIR", help="The state directory; default: the settings'.")
]
Name = Annotated[str, typer.Argument(help="The budget's name in the settings.")]
Dim = Annotated[str, typer.Option(metavar="NAME", help="Of the call.")]

budgets = typer.Typer(no_args_is_help=True, help="Where budgets stand, and what they would do.")
limits = typer.Typer(no_args_is_help=True, help="Where limits stand, and what they would do.")


def add_to(app: typer.Typer) -> None:
    """Register both groups."""
    app.add_typer(budgets, name="budgets")
    app.add_typer(limits, name="limits")


@budgets.command("state")
def budgets_state(config: Config = None, state: State = None) -> None:
    """Show what is spent and reserved of every budget, and when it resets."""
    with opened(config, state) as (trunkline, store):
        _show(trunkline.settings.budgets, store, "budgets")


@limits.command("state")
def limits_state(config: Config = None, state: State = None) -> None:
    """Show what is left of every limit."""
    with opened(config, state) as (trunkline, store):
        _show(trunkline.settings.limits, store, "limits")


@budgets.command()
def history(name: Name, config: Config = None, state: State = None) -> None:
    """List a budget's periods, newest first: what was spent, in how many attempts."""
    from ..runtime.gate_rules import instant
    from ..services import gates

    with opened(config, state) as (trunkline, store):
        budget = gates.budget_named(name, trunkline.settings.budgets)
        periods = gates.history(budget, store)
        if not periods:
            typer.echo(f"nothing has been used of the budget {name} yet")
        for used in periods:
            since = instant(used.slot_ns) if used.slot_ns else "all time"
            part = used.pool.partition(";")[2]
            unpriced = f", {used.unpriced} of them unpriced" if used.unpriced else ""
            typer.echo(
                f"{since}  {f'[{part}]  ' if part else ''}{budget.unit.text(used.spent)} "
                f"in {used.attempts} attempts{unpriced}"
            )


@budgets.command()
def override(
    name: Name,
    amount: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="In the budget's own unit.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="ISO 8601; without a zone it is UTC.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="For whoever reads it.")] = "",
    end: Annotated[bool, typer.Option("--end", help="Let the settings' amount stand.")] = False,
    config: Config = None,
    state: State = None,
) -> None:
    """Let another amount stand for a budget until a time, in every process at once."""
    from ..errors import UsageError
    from ..runtime.gate_rules import instant
    from ..services import gates

    with opened(config, state) as (trunkline, store):
        budget = gates.budget_named(name, trunkline.settings.budgets)
        if end:
            gates.end_override(budget, store)
            typer.echo(f"{name}: {budget.unit.text(budget.amount)} again")
            return
        if amount is None or until is None:
            raise UsageError("an override has --amount and --until, or --end takes it back")
        made = gates.override(budget, amount, _instant(until), reason, store)
        typer.echo(f"{name}: {budget.unit.text(made.amount)} until {instant(made.until_ns)}")


@budgets.command("explain")
def budgets_explain(
    modality: Annotated[str, typer.Argument(help="stt, llm or tts.")],
    model: Annotated[str, typer.Option(metavar="REF", help="provider/model, for prices.")] = "",
    tokens: Annotated[int, typer.Option(metavar="N", help="Tokens it may take.")] = 0,
    characters: Annotated[int, typer.Option(metavar="N", help="Characters to speak.")] = 0,
    seconds: Annotated[float, typer.Option(metavar="N", help="Seconds of audio.")] = 0,
    project: Dim = "",
    agent: Dim = "",
    key: Dim = "",
    room: Dim = "",
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Of the call.")] = None,
    config: Config = None,
    state: State = None,
) -> None:
    """Say what every budget and limit would do to a given call now."""
    from ..core.models import Identity, Modality, Usage
    from ..errors import UsageError
    from ..services import gates

    if modality not in set(Modality):
        raise UsageError(f'"{modality}" is no modality: stt, llm or tts')
    amounts = {"tokens": tokens, "characters": characters, "seconds": seconds}
    for option, given in amounts.items():
        if not 0 <= given < 1e9:
            raise UsageError(f"--{option} is from 0 to a thousand million, and not {given}")
    with opened(config, state) as (trunkline, store):
        settings = trunkline.settings
        verdicts = list(
            gates.explain(
                (*settings.budgets, *settings.limits),
                store,
                trunkline.price,
                Identity(
                    call="explain",
                    org=settings.org,
                    project=project or settings.project,
                    agent=agent,
                    room=room,
                    key=key,
                    tags=tuple(tag or ()),
                ),
                Modality(modality),
                _candidate(trunkline, Modality(modality), model),
                Usage(tokens_in=tokens, characters=characters, audio_in_ns=int(seconds * 1e9)),
            )
        )
    for verdict in verdicts:
        typer.echo(f"{verdict.rule.name}: {verdict.told}")
    passes = all(verdict.passes for verdict in verdicts)
    typer.echo("the attempt passes" if passes else "the attempt is refused")
    notice = next((verdict.notice for verdict in verdicts if not verdict.passes), "")
    if notice:
        typer.echo(f'a caller is told: "{notice}"')


limits.command("explain")(budgets_explain)


def _candidate(trunkline: Trunkline, modality: Modality, model: str) -> Candidate:
    """What ``model`` stands for in the settings; without its key, by its own name."""
    from ..compose import Wanted
    from ..core.models import Candidate, ModelRef
    from ..errors import MissingCredential

    if not model:
        return Candidate(ModelRef(""), "")
    try:
        return trunkline.plan(modality, Wanted(model)).candidates[0]
    except MissingCredential:
        return Candidate(ModelRef.parse(model, modality), "")


def _show(rules: tuple[Budget, ...] | tuple[Limit, ...], store: GateStore, what: str) -> None:
    from ..services import gates

    if not rules:
        typer.echo(f"the settings have no {what}")
    for state in gates.states(rules, store):
        typer.echo(gates.state_text(state))


@contextmanager
def opened(config: Path | None, directory: Path | None) -> Iterator[tuple[Trunkline, GateStore]]:
    """The process's Trunkline and the store of its gate, once the dead are settled."""
    from ..compose import configure
    from ..store.gates import SQLiteGateStore

    trunkline = configure(config, directory)
    if trunkline.settings.budgets or trunkline.settings.limits:
        trunkline.gate.recover()
    store = SQLiteGateStore(trunkline.state)
    try:
        yield trunkline, store
    finally:
        store.close()
        trunkline.gate.close()
        trunkline.recorder.flush_all(_FLUSH_SECONDS)


def _instant(text: str) -> int:
    from ..errors import UsageError

    try:
        read = datetime.fromisoformat(text)
        return int((read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000
    except (ValueError, OverflowError):
        raise UsageError(f'"{text}" is no time such as 2026-12-01T18:00Z') from None
