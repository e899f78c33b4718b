"""The trainer as a process of its own, for tests that kill it: arguments are a log's folder, and settings as JSON."""

import json
import signal
import sys
from pathlib import Path
from threading import Event

from dolmen.events import EmbeddedLog
from dolmen.features import Schema
from dolmen.training import TrainerSettings, run_trainer

if __name__ == "__main__":
    stop = Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    values = json.loads(sys.argv[2])
    settings = TrainerSettings(
        **{**values, "folder": Path(values["folder"]), "schema": Schema.from_dict(values["schema"])}
    )
    with EmbeddedLog(sys.argv[1]) as log:
        run_trainer(settings, log, stop)
