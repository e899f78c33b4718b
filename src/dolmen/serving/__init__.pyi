from .address import check_address
from .app import create_app, run_server
from .settings import IndexKind, ServeSettings

__all__ = ["IndexKind", "ServeSettings", "check_address", "create_app", "run_server"]
