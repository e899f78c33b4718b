"""The console: a web page that shows the loop live and lets you try a person."""

from dolmen.console.page import mount

__all__ = ["mount"]
