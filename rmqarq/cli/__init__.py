"""The command line: `rmqarq run MODULE:APP` and its sisters."""

from rmqarq.cli.main import main

__all__ = ["main"]
