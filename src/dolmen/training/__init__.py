"""Learning from data sets and streams, snapshots, and the sync that keeps replicas fresh."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
