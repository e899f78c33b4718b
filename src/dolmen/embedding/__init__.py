"""Ids to vectors: the collisionless table, the rows of a schema, and the look-up that models are handed."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
