"""dolmen: real-time recommendations on one loop, one table, one contract.

The names here are what a program needs most; each folder has the rest. They are imported when they are first used, so
that ``import dolmen`` and ``dolmen --help`` do not wait for torch. The folders do the same: ``__init__.pyi`` names
what each gives, and a process imports no more of it than it uses.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
