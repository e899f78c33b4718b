"""``python -m dolmen`` is the command ``dolmen``."""

from dolmen.cli import main

main()
