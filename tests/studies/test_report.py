"""The report holds what was measured and what follows, and nothing else."""

import io
import json
import math
import re
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from rich.console import Console
from toy import claim, figures_of, toy

from dolmen.errors import ConfigError, DataError
from dolmen.provenance import in_words, machine, program
from dolmen.studies import (
    Above,
    Cell,
    CellStore,
    Chart,
    Finished,
    Outcome,
    Part,
    Plan,
    Report,
    Results,
    Setting,
    Verdict,
    make_report,
    registry,
    run_study,
    verdicts,
    write_report,
)
from dolmen.studies.chart import draw, style
from dolmen.studies.command import Options, list_studies, reproduce
from dolmen.studies.index import write_index

REPORTS = Path(__file__).resolve().parents[2] / "docs/results/studies"
RULES = "of other rules than now: 1 of"
WORDS = "of other words than now"
MADE_BY = {
    "command": "dolmen reproduce toy",
    "date": "2026-01-01",
    "program": {"dolmen": "0", "commit": "abc"},
    "machine": {"cpu": "a chip", "cores": 2, "torch": "2"},
}


def report_of(tmp_path: Path, **changed: object) -> Report:
    study = toy(**changed)
    outcome = run_study(study, study.full, CellStore(tmp_path / "cells"), console=Console(file=io.StringIO()))
    return make_report(study, study.full, outcome, MADE_BY)


def test_the_markdown_tells_claims_figures_and_how_they_were_made(tmp_path: Path) -> None:
    text = report_of(tmp_path).to_markdown("toy.svg")
    assert "| It is better. | 0.70 against 0.60 | **holds** (1 of 1 comparisons) |" in text
    assert "![AUC, by case and arm](toy.svg)" in text
    assert "| plain | 0.6010 ± 0.001 | 20 ± 10 | 0 | 3 |" in text
    assert "| better | 0.7010 ± 0.001 | 20 ± 10 | 0 | 3 |" in text
    assert "| films | auc: better - plain | > 0, surely > 0 | 0.1000 (0.1000 to 0.1000) | holds |" in text
    for fact in ("`dolmen reproduce toy`", "abc", in_words(program(), machine()), "seeds: 0, 1, 2", "2026-01-01"):
        assert fact in text


def test_the_json_holds_every_cell_and_no_nan(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    odd = {Cell(case="films", arm="plain", seed=9): Finished(figures={"auc": math.nan}, seconds=1.0)}
    outcome = replace(report.outcome, results=Results({**report.outcome.results.finished, **odd}))
    told = json.loads(make_report(report.study, report.plan, outcome, MADE_BY).to_json())
    assert len(told["cells"]) == 7
    assert told["cells"][0] == {
        "case": "films",
        "arm": "plain",
        "seed": 0,
        "figures": {"auc": 0.6, "rows": 10.0, "rate": 0.0},
        "seconds": told["cells"][0]["seconds"],
        "fingerprint": told["cells"][0]["fingerprint"],
        "code": told["cells"][0]["code"],
        "made_by": in_words(program(), machine()),
        "rules": told["cells"][0]["rules"],
        "cases": ["films"],
    }
    assert told["cells"][-1]["figures"] == {"auc": None}
    assert told["claims"][0]["verdict"] == "holds"
    assert told["program"]["commit"] == "abc"


def test_cells_say_who_made_them_whoever_writes_the_report(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    first, *others = report.outcome.results.finished
    finished = dict(report.outcome.results.finished)
    finished[first] = replace(finished[first], made_by="commit old, another chip")
    finished[others[0]] = replace(finished[others[0]], made_by="")
    text = replace(report, outcome=replace(report.outcome, results=Results(finished))).to_markdown(None)
    assert "- made by commit old, another chip: 1 of 6 cells" in text
    assert "- made by commit and machine not recorded: 1 of 6 cells" in text
    assert f"- made by {in_words(program(), machine())}: 4 of 6 cells" in text
    assert "- written: 2026-01-01 by `dolmen reproduce toy` of commit abc" in text


def test_each_claim_says_whether_its_rule_is_older_than_its_cells(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    assert "The rule stood when its 6 cells were run." in report.to_markdown(None)

    wider = replace(claim(), rule=Above(arm="better", others=("plain",), figure="auc", margin=0.05))
    cells = dict(report.outcome.results.finished)
    for cell in [one for one in cells if one.seed == 2]:
        cells[cell] = replace(cells[cell], rules=None)
    study = toy(claims=(claim(), wider))
    outcome = replace(report.outcome, results=Results(cells))
    judged = make_report(study, study.full, outcome, MADE_BY)
    assert [asdict(one.standing) for one in judged.judged] == [
        {"stood": 4, "cases_unknown": 0, "later": 0, "unknown": 2},
        {"stood": 0, "cases_unknown": 0, "later": 4, "unknown": 2},
    ]
    text = judged.to_markdown(None)
    assert "Of its 6 cells: 4 run when the rule stood; 2 of which that was not recorded." in text
    assert "4 run before the rule or its cases were as they are; 2 of which" in text
    assert json.loads(judged.to_json())["claims"][1]["rule_standing"]["later"] == 4


def test_a_rule_that_comes_to_be_asked_of_more_cases_did_not_stand(tmp_path: Path) -> None:
    """A study once got data that had been looked at, and its page said of all claims that their rules had stood."""
    store, arms = CellStore(tmp_path), ("plain", "better")
    films, books = (Part(case=case, arms=arms, seed_count=3) for case in ("films", "books"))
    named = replace(claim("named"), rule=Above(arm="better", others=("plain",), figure="auc", cases=("films",)))
    standings = []
    for parts in ((films,), (films, books)):
        study = toy(claims=(claim(), named), full=Plan(parts=parts, minutes=1))
        outcome = run_study(study, study.full, store, console=Console(file=io.StringIO()))
        report = make_report(study, study.full, outcome, MADE_BY)
        standings.append([one.standing.describe() for one in report.judged])
    stood = "The rule stood when its 6 cells were run."
    assert standings[0] == [stood, stood]
    told = "6 run when the rule stood; 6 run before the rule or its cases were as they are"
    assert standings[1] == [f"Of its 12 cells: {told}.", stood]
    cells = {cell: replace(done, cases=None) for cell, done in outcome.results.finished.items()}  # as they once were
    before = make_report(study, study.full, replace(outcome, results=Results(cells)), MADE_BY)
    told = "12 run when the rule stood, for which cases was not recorded"
    assert [one.standing.describe() for one in before.judged] == [f"Of its 12 cells: {told}.", stood]


def test_missing_cases_and_open_cells_are_told(tmp_path: Path) -> None:
    parts = (Part(case="absent", arms=("plain",), seed_count=1), Part(case="films", arms=("plain",), seed_count=1))
    report = report_of(tmp_path, full=Plan(parts=parts, minutes=1))
    text = replace(report, outcome=replace(report.outcome, open_counts={"films": 4})).to_markdown(None)
    assert "**absent** was not run: absent is not on this machine." in text
    assert "Cells of the plan that were not run: 4 of films." in text
    assert report.judged[0].verdict is Verdict.OPEN
    assert [finding.case for finding in report.judged[0].findings] == ["absent", "films"]
    assert "(part of the plan was not run" in write_report(report, tmp_path / "out")[-1].read_text()


def test_a_verdict_says_how_much_it_rests_on(tmp_path: Path) -> None:
    arms = ("plain", "better")
    parts = (Part(case="absent", arms=arms, seed_count=3), Part(case="films", arms=arms, seed_count=3))
    (judged,) = report_of(tmp_path, full=Plan(parts=parts, minutes=1)).judged
    assert judged.summary == "holds (1 of 1 comparisons; 1 not judged)"


def test_the_picture_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pictures = []
    for folder, chart in (
        ("one", Chart(figure="auc", lines={"plain": ("plain",), "both": ("plain", "better")}, across="rows")),
        ("two", Chart(figure="auc", lines={"plain": ("plain",), "both": ("plain", "better")}, across="rows")),
        ("three", Chart(figure="auc", lines={"both": ("plain", "better")})),
    ):
        write_report(report_of(tmp_path, chart=chart), tmp_path / folder)
        pictures.append((tmp_path / folder / "toy.svg").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    assert b"<svg" in pictures[0]


@pytest.mark.parametrize("name", [name for name in registry.names() if registry.study(name).chart.across is None])
def test_the_picture_names_every_arm_that_was_run(name: str, tmp_path: Path) -> None:
    """Of the committed reports. Pictures once ended with the seventh arm, without a word."""
    pytest.importorskip("matplotlib")
    study, told = registry.study(name), json.loads((REPORTS / f"{name}.json").read_text(encoding="utf-8"))
    cells = {
        Cell(case=one["case"], arm=one["arm"], seed=one["seed"]): Finished(figures=one["figures"], seconds=0.0)
        for one in told["cells"]
        if one["figures"].get(study.chart.figure) is not None
    }
    assert draw(study, Results(cells), tmp_path / "drawn.svg")
    picture = (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    case_counts = Counter(arm for _, arm in {(cell.case, cell.arm) for cell in cells})
    # Texts are drawn as outlines; matplotlib writes each as a comment beside its own.
    assert {arm: picture.count(f"<!-- {arm} -->") for arm in case_counts} == case_counts


def test_more_lines_than_colours_are_told_apart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    lines = {f"line {index}": ("plain", "better") for index in range(9)}
    report = report_of(tmp_path, chart=Chart(figure="auc", lines=lines, across="rows"))
    assert draw(report.study, report.outcome.results, tmp_path / "drawn.svg")
    picture = (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    assert all(f"<!-- {line} -->" in picture for line in lines)
    looks = [tuple(style(index).items()) for index in range(49)]
    assert len(set(looks)) == len(looks)


def test_arms_of_no_line_stand_below_the_others(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = report_of(tmp_path, chart=Chart(figure="auc", lines={"better": ("better",)}))
    assert draw(report.study, report.outcome.results, tmp_path / "drawn.svg")
    picture = (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    assert 0 < picture.find("<!-- better -->") < picture.find("<!-- plain -->")


def test_without_matplotlib_the_report_has_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dolmen.studies.chart.find_spec", lambda name: None)  # noqa: ARG005
    written = write_report(report_of(tmp_path), tmp_path / "out")
    assert [path.name for path in written] == ["toy.json", "toy.md", "README.md"]
    assert "![" not in written[1].read_text()


def test_a_study_that_contradicts_itself_is_refused() -> None:
    rule = Above(arm="best", others=("plain",), figure="auc")
    with pytest.raises(ValueError, match="a rule names the arm 'best'; declare it in arms"):
        toy(claims=(replace(claim(), rule=rule),))
    with pytest.raises(ValueError, match="reads 'ndcg'; declare it in figures"):
        toy(claims=(replace(claim(), rule=replace(rule, arm="better", figure="ndcg")),))
    with pytest.raises(ValueError, match="the chart names the arm 'best'"):
        toy(chart=Chart(figure="auc", lines={"all": ("best",)}))
    with pytest.raises(ValueError, match="'Some Films' must be small letters"):
        toy(full=Plan(parts=(Part(case="Some Films", arms=("plain",), seed_count=1),), minutes=1))


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Console:
    """Where ``reproduce`` prints; the toy is the only study, and the cache is empty."""
    monkeypatch.setattr(registry, "_STUDIES", {"toy": toy()})
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path / "cache"))
    return Console(file=io.StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\s+", " ", console.file.getvalue())


def test_reproduce_writes_the_report_and_the_list_knows_it(console: Console, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert reproduce(Options(studies=("toy",), out=out), console) == 0
    assert (out / "toy.md").is_file()
    assert "| [A toy](toy.md) | Nobody, 2026 | holds: 1 |" in (out / "README.md").read_text()
    assert "written:" in said(console)
    console.print(list_studies(out))
    assert "better: holds" in said(console)


def test_a_claim_that_does_not_hold_is_a_result_but_a_broken_guard_is_a_failure(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(claim(), rule=Above(arm="plain", others=("better",), figure="auc"))
    monkeypatch.setattr(registry, "_STUDIES", {"toy": toy(claims=(wrong,), guards=(wrong,))})
    assert reproduce(Options(studies=("toy",), out=tmp_path / "out"), console) == 0
    assert reproduce(Options(quick=True), console) == 1
    assert "does not hold" in said(console)
    with pytest.raises(ConfigError, match="--out is where reports go, and --quick writes none"):
        reproduce(Options(quick=True, out=tmp_path / "quick"), console)
    assert not (tmp_path / "quick").exists()


def test_a_guard_whose_data_is_not_here_is_told_and_no_failure(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = Plan(parts=(Part(case="absent", arms=("plain", "better"), seed_count=1),), minutes=1)
    monkeypatch.setattr(registry, "_STUDIES", {"toy": toy(quick=quick)})
    assert reproduce(Options(quick=True), console) == 0
    assert "not run: absent is not on this machine" in said(console)


def test_kept_cells_cannot_be_taken_over_where_none_are_kept(console: Console) -> None:
    with pytest.raises(ConfigError, match="--take-over is for kept cells, and --quick keeps none"):
        reproduce(Options(quick=True, take_over="why not"), console)


@pytest.mark.parametrize("why", ["", "  "])
def test_cells_are_not_taken_over_without_a_reason(console: Console, tmp_path: Path, why: str) -> None:
    with pytest.raises(ConfigError, match="--take-over needs a reason"):
        reproduce(Options(studies=("toy",), out=tmp_path / "out", take_over=why), console)


def test_cells_of_other_code_are_told_with_what_can_be_done(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    reproduce(Options(studies=("toy",), out=out), console)
    monkeypatch.setattr(registry, "_STUDIES", {"toy": toy(stands_on=("dolmen.clock",))})
    console.print(list_studies(out))
    assert "(of other code than now: 6 of 6 cells)" in said(console)
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path / "elsewhere"))
    options = Options(studies=("toy",), out=tmp_path / "stored", only_stored=True, cells_from=out / "toy.json")
    with pytest.raises(ConfigError, match=r"toy: 0 cells are finished here, and 6 of other code or settings\. "):
        reproduce(options, console)
    assert f"toy: 6 cells are kept from {out / 'toy.json'}" in said(console)
    assert not (tmp_path / "stored").exists()
    reproduce(replace(options, take_over="a word changed"), console)
    (told,) = verdicts(tmp_path / "stored").values()
    other = toy(stands_on=("dolmen.clock",))
    assert (told.on_study(other), told.on_code(other)) == ([], ["taken over: 6 of 6 cells"])
    assert told.on_code(toy()) == ["taken over: 6 of 6 cells", "of other code than now: 6 of 6 cells"]
    assert "(taken over: 6 of 6 cells)" in (tmp_path / "stored" / "README.md").read_text()
    made, stored = (json.loads((folder / "toy.json").read_text()) for folder in (out, tmp_path / "stored"))
    assert [cell["code"] for cell in stored["cells"]] == [cell["code"] for cell in made["cells"]]


def test_the_list_and_the_index_say_where_a_report_is_not_of_the_plan_of_now(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    reproduce(Options(studies=("toy",), out=out, seed_count=2), console)
    assert "not judged: 1 (part of the plan: 2 of 6 cells are missing)" in (out / "README.md").read_text()
    plan = Plan(parts=(Part(case="films", arms=("better",), seed_count=2),), settings={"size": 2}, minutes=1)
    monkeypatch.setattr(registry, "_STUDIES", {"toy": toy(full=plan)})
    console.print(list_studies(out))
    assert "of another plan: 2 of 4 cells are not in that of now" in said(console)
    assert "of another plan: its settings are not those of now" in said(console)
    report = json.loads((out / "toy.json").read_text())
    for cell in report["cells"]:
        del cell["code"]
    (out / "toy.json").write_text(json.dumps(report))
    console.print(list_studies(out))
    assert "of code that was not recorded: 4 of 4 cells" in said(console)


@pytest.mark.parametrize(
    ("changed", "mark"),
    [
        ({"claims": (replace(claim(), rule=Above(arm="better", others=("plain",), figure="auc", margin=0.5)),)}, RULES),
        ({"claims": (claim(), claim("again"))}, RULES),
        ({"claims": (replace(claim(), paper="0.70"),)}, WORDS),
        ({"protocol": ("Everything is trained.",)}, WORDS),
        ({"care": "One seed."}, WORDS),
        ({"arms": {"plain": "the baseline", "better": "another method"}}, WORDS),
        ({"guards": ()}, None),  # which are judged in the quick form
    ],
)
def test_the_list_and_the_index_say_where_a_report_is_of_other_rules_or_words(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object], mark: str | None
) -> None:
    """A page once had an older protocol and care than its study, and the index and the list did not mark it."""
    reproduce(Options(studies=("toy",), out=tmp_path), console)
    monkeypatch.setattr(registry, "_STUDIES", {"toy": toy(**changed)})
    index = write_index(tmp_path).read_text()
    console.print(list_studies(tmp_path))
    assert [one for one in (RULES, WORDS) if one in said(console)] == [one for one in (RULES, WORDS) if one in index]
    assert (mark in index) if mark else ("(" not in index.partition("holds: 1 ")[2])


@pytest.mark.fault
def test_where_reports_go_is_tried_before_anything_runs(console: Console, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", Path("/proc/studies")):
        with pytest.raises(ConfigError, match=rf"--out {out}: nothing can be written to .*; name another"):
            reproduce(Options(studies=("toy",), out=out), console)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("quick", "kept"), [(False, "kept; the same command goes on"), (True, "--quick keeps none")])
def test_who_stops_it_is_told_what_is_kept(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str, *, quick: bool
) -> None:
    def stopped(cell: Cell, _: Setting) -> dict[str, float]:
        if cell.seed == 1:
            raise KeyboardInterrupt
        return figures_of(cell)

    monkeypatch.setattr(registry, "_STUDIES", {"toy": toy(run=stopped)})
    assert reproduce(Options(studies=("toy",), quick=quick, out=None if quick else tmp_path / "out"), console) == 130
    assert "toy: stopped. 2 of 6 cells are finished, and " in said(console)
    assert kept in said(console)
    assert not (tmp_path / "out" / "toy.json").exists()


def test_a_report_from_a_tree_with_changes_is_called_not_citable(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for commit, is_told in (("abc", False), (None, False), ("abc-dirty", True)):
        monkeypatch.setattr("dolmen.studies.command.program", lambda commit=commit: {"dolmen": "0", "commit": commit})
        reproduce(Options(studies=("toy",), out=tmp_path / "out"), console)
        assert ("NOT CITABLE: this tree has changes" in said(console)) == is_told


def test_what_to_read_with_care_stands_right_below_the_claims(tmp_path: Path) -> None:
    line = "**Read with care:** One seed."
    assert line not in report_of(tmp_path).to_markdown(None)
    text = report_of(tmp_path, care="One seed.").to_markdown(None)
    claims, rest = text.split(f"\n\n{line}\n")
    assert claims.splitlines()[-1].startswith("| It is better. |")
    assert rest.startswith("\n## What was measured")


def test_a_run_goes_on_from_its_report_on_a_machine_that_has_no_cells(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert reproduce(Options(studies=("toy",), seed_count=1, out=out), console) == 0
    first = json.loads((out / "toy.json").read_text())
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path / "elsewhere"))
    options = Options(studies=("toy",), out=tmp_path / "stored", only_stored=True, cells_from=out / "toy.json")
    assert reproduce(options, console) == 0
    stored = json.loads((tmp_path / "stored" / "toy.json").read_text())
    assert (stored["cells"], stored["open_counts"]) == (first["cells"], {"films": 4})
    assert reproduce(replace(options, only_stored=False), console) == 0  # The rest is run, and these are not run again.
    whole = json.loads((tmp_path / "stored" / "toy.json").read_text())
    assert len(whole["cells"]) == 6
    assert [cell for cell in whole["cells"] if cell["seed"] == 0] == first["cells"]


def test_a_report_is_not_replaced_by_less_of_it(
    console: Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    reproduce(Options(studies=("toy",), out=out), console)
    whole = (out / "toy.json").read_text()
    monkeypatch.setenv("DOLMEN_CACHE", str(tmp_path / "elsewhere"))
    with pytest.raises(ConfigError, match=r"toy: 0 cells are finished here\. --cells-from REPORT"):
        reproduce(Options(studies=("toy",), out=out, only_stored=True), console)
    reproduce(Options(studies=("toy",), seed_count=1, out=tmp_path / "part"), console)
    for fewer in (
        Options(studies=("toy",), out=out, only_stored=True),
        Options(studies=("toy",), out=out, seed_count=1),
    ):
        with pytest.raises(ConfigError, match=r"toy: 2 cells are finished here; .*toy.json would lose 4 of its 6"):
            reproduce(fewer, console)
    with pytest.raises(ConfigError, match="--stored reports kept cells, and --quick keeps none"):
        reproduce(Options(studies=("toy",), quick=True, only_stored=True), console)
    assert (out / "toy.json").read_text() == whole
    reproduce(Options(studies=("toy",), out=out, only_stored=True, cells_from=out / "toy.json"), console)
    assert len(json.loads((out / "toy.json").read_text())["cells"]) == 6


def test_what_cells_come_from_is_one_report_of_one_study(console: Console, tmp_path: Path) -> None:
    wrong = tmp_path / "toy.json"
    wrong.write_text('{"claims": []}')
    with pytest.raises(DataError, match=r"toy.json is no report of a study .* name its .json"):
        reproduce(Options(studies=("toy",), cells_from=wrong), console)
    with pytest.raises(ConfigError, match="--cells-from is a report of one study: name that study"):
        reproduce(Options(quick=True, cells_from=wrong), console)


def test_studies_are_asked_for_by_name(console: Console) -> None:
    with pytest.raises(ConfigError, match="there is no study 'tory'; did you mean 'toy'"):
        reproduce(Options(studies=("tory",)), console)
    with pytest.raises(ConfigError, match="name a study: toy"):
        reproduce(Options(), console)


def test_outcome_of_nothing_is_a_report_too() -> None:
    study = toy()
    outcome = Outcome(results=Results({}), prepared={}, missing={}, open_counts={"films": 6}, device="cpu")
    assert "Cells of the plan that were not run: 6 of films." in make_report(
        study, study.full, outcome, MADE_BY
    ).to_markdown(None)
