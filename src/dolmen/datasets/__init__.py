"""Real data by name, and a simulated world with known truth: tables, slates in time order, and examples."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
