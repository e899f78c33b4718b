from .run import run_demo
from .setup import DemoOptions

__all__ = ["DemoOptions", "run_demo"]
