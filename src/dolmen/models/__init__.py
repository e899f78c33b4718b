"""Models: one file each, one contract for all, and a registry that knows them by name."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
