"""The command line: options in, one library call, the result printed."""

from __future__ import annotations

# Commands are listed by `dyx --help` in the order in which these modules name them.
from dyx.cli import author, deploy, measure
from dyx.cli.app import app, main

__all__ = ["app", "author", "deploy", "main", "measure"]
