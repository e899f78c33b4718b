"""What was judged of each claim, for ``dolmen reproduce --list``, and whether it is of the study and code of now.

It is taken from the committed reports, which no wheel holds; ``tools/write_reference.py`` writes it into a file that it
does hold.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, final

from dolmen.errors import DataError
from dolmen.studies.cells import plain
from dolmen.studies.reach import reach_of_study
from dolmen.studies.registry import names
from dolmen.studies.results import Cell
from dolmen.studies.rules import checksum_of_rule
from dolmen.studies.study import PREPARED, Study

__all__ = ["Reported", "released_verdicts", "reported", "verdicts"]


@final
@dataclass(frozen=True, kw_only=True)
class Reported:
    """What a report says, and what it is of.

    Args:
        claims: the verdict of each claim, by name.
        seeds: those that were run of each arm, by case: ``{"films": {"deepfm": "0 1 2"}}``.
        settings: a checksum of the plan's settings.
        rules: the checksum of the rule that judged each claim, by name.
        words: a checksum of what is said of the study: its protocol, care, claims, arms and figures.
        codes: how many cells are believed to be of which code (see ``reach``); ``""``: nobody wrote it down.
        taken_over: how many of them other code made, and were taken over for theirs.
    """

    claims: Mapping[str, str]
    seeds: Mapping[str, Mapping[str, str]]
    settings: str
    rules: Mapping[str, str]
    words: str
    codes: Mapping[str, int]
    taken_over: int

    @property
    def cells(self) -> set[Cell]:
        """Those that it has."""
        return {
            Cell(case=case, arm=arm, seed=int(seed))
            for case, arms in self.seeds.items()
            for arm, seeds in arms.items()
            for seed in seeds.split()
        }

    def on_study(self, study: Study) -> list[str]:
        """Where it is not of the study's plan, rules and words as they are now; empty where it is."""
        planned, there = set(study.full.cells()), self.cells
        told = []
        if missing := len(planned - there):
            told.append(f"part of the plan: {missing} of {len(planned)} cells are missing")
        if others := len(there - planned):
            told.append(f"of another plan: {others} of {len(there)} cells are not in that of now")
        if there and self.settings != _checksum(plain(study.full.settings)):
            told.append("of another plan: its settings are not those of now")
        rules = {claim.name: checksum_of_rule(claim.rule) for claim in study.claims}
        claims = {*self.rules, *rules}
        if changed := sum(self.rules.get(name) != rules.get(name) for name in claims):
            told.append(f"of other rules than now: {changed} of {len(claims)} claims")
        if self.words != _checksum(_words(plain(study.words))):
            told.append("of other words than now")
        return told

    def believed(self) -> list[str]:
        """Where cells are believed for a reason that somebody gave, whatever code is that of now."""
        return [f"taken over: {self.taken_over} of {sum(self.codes.values())} cells"] if self.taken_over else []

    def on_code(self, study: Study) -> list[str]:
        """Where cells are of other code than now, or nobody knows of which; empty where all were made by this.

        What was taken over for the code of now is told as that.
        """
        unknown = self.codes.get("", 0)
        known = sum(self.codes.values()) - unknown
        told = self.believed()
        if others := known and known - self.codes.get(reach_of_study(study).fingerprint, 0):
            told.append(f"of other code than now: {others} of {known + unknown} cells")
        if unknown:
            told.append(f"of code that was not recorded: {unknown} of {known + unknown} cells")
        return told


def reported(report: Mapping[str, Any]) -> Reported:
    """What a report, read from its JSON, says.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is no report.
    """
    seeds: dict[str, dict[str, str]] = {}
    codes: Counter[str] = Counter()
    for one in report.get("cells", ()):
        codes[str(one.get("taken_over_for") or one.get("code", ""))] += 1
        if one["arm"] != PREPARED:
            arms = seeds.setdefault(str(one["case"]), {})
            arms[str(one["arm"])] = f"{arms.get(one['arm'], '')} {int(one['seed'])}".strip()
    return Reported(
        claims={str(claim["name"]): str(claim["verdict"]) for claim in report["claims"]},
        seeds=seeds,
        settings=_checksum(report.get("settings")),
        rules={str(claim["name"]): str(claim.get("rule_checksum", "")) for claim in report["claims"]},
        words=_checksum(_words(report)),
        codes=dict(sorted(codes.items())),
        taken_over=sum("taken_over" in one for one in report.get("cells", ())),
    )


def verdicts(folder: Path) -> dict[str, Reported]:
    """Of each study that has a report in ``folder``: what it says.

    Raises:
        DataError: a file there has a study's name and is no report.
    """
    told: dict[str, Reported] = {}
    for name in names():
        path = folder / f"{name}.json"
        if path.exists():
            try:
                told[name] = reported(json.loads(path.read_text(encoding="utf-8")))
            except (ValueError, KeyError, TypeError, AttributeError) as problem:
                raise DataError(
                    f"{path} is no report of a study: `dolmen reproduce {name}` writes it anew"
                ) from problem
    return told


@cache
def released_verdicts() -> dict[str, Reported]:
    """The `verdicts` of the reports that were there when this was released."""
    told = json.loads(Path(__file__).with_name("verdicts.json").read_text(encoding="utf-8"))
    return {name: Reported(**one) for name, one in told.items()}


def _words(report: Mapping[str, Any]) -> dict[str, Any]:
    """What a report says of its study: nothing of what was measured or came out."""
    told = {name: report.get(name) for name in ("title", "paper", "data", "protocol", "care", "arms", "figures")}
    claims = [{name: claim.get(name) for name in ("name", "statement", "paper", "rule")} for claim in report["claims"]]
    return {**told, "claims": claims}


def _checksum(settings: object) -> str:
    return hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=8).hexdigest()
