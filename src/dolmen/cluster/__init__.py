"""Where the stages of the loop run: one machine's processes, their configuration, and a look at what they keep."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
