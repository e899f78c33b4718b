"""Papers put to the test: each study runs a paper's claims against its baselines, and a rule written before judges."""

from dolmen.studies.cells import CellStore
from dolmen.studies.command import Options, list_studies, reproduce
from dolmen.studies.correlation import CorrelationReport, measure_correlation, write_correlation
from dolmen.studies.index import index_page
from dolmen.studies.learned import LearnedCorrelation, Learner
from dolmen.studies.measured import measured
from dolmen.studies.registry import names, study
from dolmen.studies.report import Judged, Report, Standing, judge, make_report, write_report
from dolmen.studies.results import Cell, Finished, Results
from dolmen.studies.rules import Above, Finding, Ordered, Rule, Verdict, Within, verdict_of
from dolmen.studies.runner import Outcome, Stopped, run_study
from dolmen.studies.study import Chart, Claim, Part, Plan, Setting, Shown, Study
from dolmen.studies.verdicts import Reported, verdicts

__all__ = [
    "Above",
    "Cell",
    "CellStore",
    "Chart",
    "Claim",
    "CorrelationReport",
    "Finding",
    "Finished",
    "Judged",
    "LearnedCorrelation",
    "Learner",
    "Options",
    "Ordered",
    "Outcome",
    "Part",
    "Plan",
    "Report",
    "Reported",
    "Results",
    "Rule",
    "Setting",
    "Shown",
    "Standing",
    "Stopped",
    "Study",
    "Verdict",
    "Within",
    "index_page",
    "judge",
    "list_studies",
    "make_report",
    "measure_correlation",
    "measured",
    "names",
    "reproduce",
    "run_study",
    "study",
    "verdict_of",
    "verdicts",
    "write_correlation",
    "write_report",
]
