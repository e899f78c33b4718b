"""Serving: a replica of the parameters, the pipeline from request to slate, and the HTTP API around it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
