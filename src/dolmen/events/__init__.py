"""What happened: events, the log they lie in, and the joiner that makes examples of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
