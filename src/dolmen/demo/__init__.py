"""The demo: the loop on one machine, fed with the past."""

from dolmen.demo.run import run_demo
from dolmen.demo.setup import DemoOptions

__all__ = ["DemoOptions", "run_demo"]
