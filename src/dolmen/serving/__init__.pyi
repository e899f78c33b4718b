from .app import create_app, run_server
from .settings import IndexKind, ServeSettings

__all__ = ["IndexKind", "ServeSettings", "create_app", "run_server"]
