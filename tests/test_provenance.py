"""What a result says of how it was made."""

import sys
from argparse import Namespace
from pathlib import Path

import pytest

from dolmen.provenance import command

ROOT = Path(__file__).resolve().parent.parent


def test_a_command_tells_every_option_and_no_path_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "benchmarks" / "table" / "peers.py"), "--peers", "/home/ann/peers"])
    options = Namespace(
        peers=Path("/home/ann/peers"),
        dims=[16, 32],
        contenders=["dolmen", "torch, dict"],
        warm_batches=8,
        is_short=True,
        is_long=False,
        only=None,
        out=ROOT / "docs" / "results" / "table-peers.json",
    )
    assert command(options, peers="DIR") == (
        "python benchmarks/table/peers.py --peers DIR --dims 16 32 --contenders dolmen 'torch, dict' --warm-batches 8 "
        "--is-short --out docs/results/table-peers.json"
    )
