"""Serving: a replica of the parameters, the pipeline from request to slate, and the HTTP API around it."""

from dolmen.serving.app import create_app, run_server
from dolmen.serving.settings import IndexKind, ServeSettings

__all__ = ["IndexKind", "ServeSettings", "create_app", "run_server"]
