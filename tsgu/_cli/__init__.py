"""The command line."""

from tsgu._cli._main import main

__all__ = ["main"]
