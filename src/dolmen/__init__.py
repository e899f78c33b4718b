"""dolmen: real-time recommendations on one loop, one table, one contract."""

__version__ = "0.1.0"
