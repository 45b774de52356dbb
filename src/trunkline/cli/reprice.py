"""``trunkline prices`` and ``trunkline reprice``: what is known of prices, and charging by it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..core.pricing import Price

_INDENT = " " * 4


def add_to(app: typer.Typer) -> None:
    """Register both commands."""
    app.command()(prices)
    app.command()(reprice)


def prices(
    provider: Annotated[str | None, typer.Argument(help="Default: every provider.")] = None,
) -> None:
    """List the prices that calls are charged by, with their dates and sources."""
    from ..catalog.pricelist import shipped
    from ..core.names import did_you_mean
    from ..errors import UsageError

    known = shipped().providers()
    if provider is not None and provider not in known:
        raise UsageError(f'no prices of "{provider}" are known{did_you_mean(provider, known)}')
    for name in known if provider is None else (provider,):
        for price in shipped().prices(name):
            models = ", ".join(price.models)
            typer.echo(f"{name}  {price.modality}  {models}{_terms(price)}")
            for rate in price.rates:
                typer.echo(f"{_INDENT}{rate}")
            typer.echo(f"{_INDENT}{_dates(price)}; {price.source}, read {price.checked}")


def reprice(
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The state directory, e.g. demo-out.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings; default: ./trunkline.yaml."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="Only attempts from this day (UTC) on.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this provider's attempts.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be corrected; write nothing.")
    ] = False,
) -> None:
    """Charge what had no price, or another one, by the prices known now; edits nothing."""
    from ..core.models import Attempt, Entry, money
    from ..services import gates
    from ..services import reprice as service
    from .budgets import opened

    since_ns = None if since is None else _day_ns(since)
    with opened(config, state) as (trunkline, store):

        def corrected(attempt: Attempt, entry: Entry, prices: bool) -> None:
            gates.correct(trunkline.settings.budgets, store, attempt, entry, prices=prices)

        done = service.reprice(
            trunkline.state,
            since_ns=since_ns,
            provider=provider,
            dry_run=dry_run,
            corrected=corrected,
        )
    would = "would be " if dry_run else ""
    typer.echo(f"{done.attempts} attempts looked at")
    typer.echo(
        f"{done.priced} {would}priced, {done.corrected} {would}corrected, "
        f"together {money(done.nanos)} USD"
    )
    if done.unpriced:
        typer.echo(f"{done.unpriced.total()} unpriced")
    for reason, count in done.unpriced.most_common():
        typer.echo(f"{_INDENT}{count}  {reason}")


def _day_ns(text: str) -> int:
    from ..errors import UsageError

    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(f"--since {text!r} is not a day like 2026-11-21") from None
    return int(day.timestamp()) * 1_000_000_000


def _terms(price: Price) -> str:
    told = [
        f"{price.mode} only" if price.mode != "any" else "",
        ", ".join(price.languages),
        price.region,
        f"tier {price.tier}".replace("tier +", "with ") if price.tier else "",
        f"prompts over {price.prompt_over} tokens" if price.prompt_over >= 0 else "",
        f"prompts up to {price.prompt_up_to} tokens" if price.prompt_up_to is not None else "",
    ]
    text = ", ".join(word for word in told if word)
    return f" ({text})" if text else ""


def _dates(price: Price) -> str:
    text = f"from {_day(price.valid_from_ns)}"
    return f"{text} until {_day(price.valid_until_ns)}" if price.valid_until_ns else text


def _day(ns: int) -> str:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).date().isoformat()
