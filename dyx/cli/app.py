"""The application `dyx`: its entry point, and what stands before a command."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dyx import console
from dyx.errors import DyxError

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""

ABOUT = "Fold, export, prove and benchmark dynamic convolutional networks from PaddlePaddle."

app = typer.Typer(
    name="dyx",
    help=ABOUT,
    epilog="Start with `dyx export` and `dyx bench --batch 512`. Bundles land in bundles/<model>.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """The entry point `dyx`: runs a command and turns errors into one sentence and an exit code."""
    try:
        app()
    except DyxError as error:
        if "--debug" in sys.argv:
            raise
        console.show_error(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.stderr().print("interrupted; nothing half-made was left behind")
        sys.exit(INTERRUPTED)


def _version(wanted: bool) -> None:
    if wanted:
        from dyx import __version__

        typer.echo(f"dyx {__version__}")
        raise typer.Exit


@app.callback(help=ABOUT)
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
) -> None:
    """Options that stand before the command; `main` reads `--debug`."""
