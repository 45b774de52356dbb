"""Commands, and the one place where an error becomes a sentence and an exit status.

Status 0: done. 1: it did not work, or a call was not answered. 2: the input cannot be used.
3: a drill could not try everything. 130: interrupted. 141: whoever read the output has gone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from .boundary import begin_log, heed_interrupts, status_of
from .budgets import add_to as add_budgets_to
from .reprice import add_to as add_pricing_to


class _Commands(TyperGroup):
    """The group of all commands; whatever a command raises ends here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            heed_interrupts()
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:  # the last boundary before the user
            if _is_usage_of_typer(error):
                raise
            status = status_of(error, debug=bool(ctx.params.get("debug")))
        raise typer.Exit(status)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="The self-hosted exchange for voice agents.",
)
config_app = typer.Typer(no_args_is_help=True, help="Work with trunkline.yaml.")
app.add_typer(config_app, name="config")
doubles_app = typer.Typer(no_args_is_help=True, help="Work with doubles of providers.")
app.add_typer(doubles_app, name="doubles")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings; default: ./trunkline.yaml if any."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout.")]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trunkline {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show logs and tracebacks.")] = False,
) -> None:
    begin_log(debug=debug)


@app.command()
def demo(
    caller: Annotated[
        Path | None, typer.Option(metavar="WAV", help="Play this recording as the caller.")
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where call.wav, call.json and the ledger go.")
    ] = Path("demo-out"),
    stack: Annotated[
        str, typer.Option(metavar="NAME", help="Who hears, thinks, speaks.")
    ] = "local",
    config: ConfigOption = None,
    as_json: JsonOption = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show each attempt as it is settled.")
    ] = False,
) -> None:
    """Let a caller talk with a voice agent: in real time, without a key or a network."""
    from .demo.command import Options, run

    options = Options(caller, out, stack, config, as_json, verbose)
    raise typer.Exit(run(options))


@app.command()
def drill(
    routes: Annotated[
        list[str] | None, typer.Argument(metavar="ROUTE", help="Routes or stacks; default: all.")
    ] = None,
    config: ConfigOption = None,
    fault: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this one; may be repeated.")
    ] = None,
    max_dead_air: Annotated[
        float, typer.Option(metavar="SECONDS", help="The longest silence that is no shortfall.")
    ] = 4.0,
    as_json: JsonOption = False,
) -> None:
    """Play faults against your routes, with doubles in the providers' place.

    Status 0: within the limits. 1: a route fell short. 3: something could not be tried.
    """
    from .drill.command import Options, run

    options = Options(routes or [], fault or [], config, max_dead_air, as_json)
    raise typer.Exit(run(options))


@app.command()
def ledger(
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The state directory, e.g. demo-out.")
    ] = None,
    config: ConfigOption = None,
    call: Annotated[str | None, typer.Option(metavar="ID", help="Only this call.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List what was attempted, what it used and what it cost."""
    from .ledger import run

    run(config, state, call, as_json)


@app.command("serve")
def serve_gateway(
    config: ConfigOption = None,
    host: Annotated[
        str | None, typer.Option(metavar="H", help="Where to listen; default: gateway.host.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(metavar="P", min=0, max=65535, help="Default: gateway.port; 0: a free one."),
    ] = None,
    workers: Annotated[
        int, typer.Option(metavar="N", help="How many processes share the port.")
    ] = 1,
) -> None:
    """Serve agents over the network: LiveKit's inference protocol and OpenAI's, on one port."""
    from .serve import run

    run(config, host, port, workers)


@config_app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="Default: ./trunkline.yaml if any.")] = None,
) -> None:
    """Read the settings and report every mistake at once."""
    from ..compose import configure

    trunkline = configure(file)
    typer.echo(f"the settings are in order; state is kept in {trunkline.state}")


@doubles_app.command()
def serve(
    file: Annotated[
        Path | None,
        typer.Argument(help="Which providers, ports and faults; default: all, on one free port."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(metavar="E", help="scripted, or local: real speech; default: the file's."),
    ] = None,
) -> None:
    """Serve providers' protocols on this machine until Ctrl-C."""
    from .doubles import run

    run(file, engine)


add_budgets_to(app)
add_pricing_to(app)


def _is_usage_of_typer(error: BaseException) -> bool:
    """Whether typer itself can show this error: a wrong option, a missing argument."""
    return hasattr(error, "exit_code") and hasattr(error, "show")
