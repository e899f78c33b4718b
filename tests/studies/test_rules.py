"""Verdicts follow from figures by the rule alone."""

import hashlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dolmen.studies import Above, Cell, Finding, Finished, Ordered, Results, Verdict, Within, verdict_of
from dolmen.studies.rules import Rule, checksum_of_rule


def results_of(**arms: list[float]) -> Results:
    """The figure ``auc`` of arms on the case ``films``, from seeds 0, 1, ..."""
    return Results(
        {
            Cell(case="films", arm=arm, seed=seed): Finished(figures={"auc": value}, seconds=1.0)
            for arm, values in arms.items()
            for seed, value in enumerate(values)
        }
    )


@pytest.mark.parametrize("seed_count", [1, 2])
def test_of_one_or_two_seeds_nothing_is_sure(seed_count: int) -> None:
    better, plain = [0.9, 0.91][:seed_count], [0.1, 0.1][:seed_count]
    rule = Above(arm="better", others=("plain",), figure="auc")
    assert verdict_of(rule.findings(results_of(better=better, plain=plain), ["films"])) is Verdict.OPEN


def test_to_be_surely_within_bounds_is_judged_of_the_whole_interval() -> None:
    rule = Within(arm="ours", figure="auc", minus="theirs", low=-0.1, high=0.1, sure=True)
    plain = [0.5, 0.5, 0.5]

    def verdict(*values: float) -> Verdict:
        return verdict_of(rule.findings(results_of(ours=list(values), theirs=plain), ["films"]))

    assert verdict(0.51, 0.50, 0.52) is Verdict.HOLDS
    assert verdict(0.70, 0.71, 0.72) is Verdict.FAILS
    # Within on average, and beyond it, with a bound inside the interval: more seeds would tell.
    assert verdict(0.45, 0.50, 0.65) is Verdict.OPEN
    assert verdict(0.55, 0.65, 0.70) is Verdict.OPEN
    assert verdict_of(rule.findings(results_of(ours=[0.5], theirs=[0.5]), ["films"])) is Verdict.OPEN


def test_above_needs_the_margin_and_a_sure_difference() -> None:
    steady = results_of(better=[0.70, 0.71, 0.72], plain=[0.60, 0.61, 0.62])
    noisy = results_of(better=[0.70, 0.50, 0.72], plain=[0.60, 0.61, 0.62])

    def holds(results: Results, *, margin: float = 0.0, sure: bool = True) -> bool | None:
        rule = Above(arm="better", others=("plain",), figure="auc", margin=margin, sure=sure)
        (finding,) = rule.findings(results, ["films"])
        return finding.holds

    assert holds(steady) is True
    assert holds(steady, margin=0.09) is True
    assert holds(steady, margin=0.11) is False
    # On average 0.03 above, but one seed of three says the opposite.
    assert holds(noisy) is False
    assert holds(noisy, sure=False) is True


def test_differences_are_paired_by_seed() -> None:
    # Seeds differ by far more than arms do; only their differences tell.
    results = results_of(better=[0.1002, 0.5002, 0.9003], plain=[0.1, 0.5, 0.9])
    (finding,) = Above(arm="better", others=("plain",), figure="auc").findings(results, ["films"])
    assert finding.value == pytest.approx((0.0002 + 0.0002 + 0.0003) / 3)
    assert finding.holds is True


def test_within_takes_the_figure_a_difference_or_a_ratio() -> None:
    results = results_of(ours=[10.0, 14.0], theirs=[2.0, 4.0])
    for options, value in (({}, 12.0), ({"minus": "theirs"}, 9.0), ({"over": "theirs"}, 4.0)):
        for low, high, holds in ((value, value, True), (value + 0.1, math.inf, False), (-math.inf, value - 0.1, False)):
            rule = Within(arm="ours", figure="auc", low=low, high=high, **options)
            (finding,) = rule.findings(results, ["films"])
            assert (finding.value, finding.holds) == (pytest.approx(value), holds)
    with pytest.raises(ValueError, match="either minus or over"):
        Within(arm="ours", figure="auc", minus="theirs", over="theirs")


def test_a_ratio_is_of_the_seeds_that_both_ran() -> None:
    """A seed that one arm alone ran once decided that what it lost was halved by the other, which lost nothing."""
    ours, theirs = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0022, 0.0]
    rule = Within(arm="ours", figure="auc", over="theirs", high=0.5)
    assert verdict_of(rule.findings(results_of(ours=ours, theirs=theirs), ["films"])) is Verdict.OPEN
    (finding,) = rule.findings(results_of(ours=[1.0, 3.0], theirs=[0.0, 8.0, 1000.0]), ["films"])
    assert (finding.value, finding.holds) == (4 / 8, True)  # of the means, so a seed with 0 below the line is no harm
    assert "over the seeds that both ran, where the mean of theirs is above 0" in rule.describe()


@pytest.mark.parametrize("theirs", [[], [0.0, 0.0], [-1.0, -2.0], [math.nan, 1.0]])
def test_a_ratio_over_nothing_is_not_judged(theirs: list[float]) -> None:
    rule = Within(arm="ours", figure="auc", over="theirs", high=0.5)
    assert verdict_of(rule.findings(results_of(ours=[1.0, 1.0], theirs=theirs), ["films"])) is Verdict.OPEN


def test_a_ratio_is_sure_where_its_whole_interval_is_within() -> None:
    results = results_of(ours=[10.0, 14.0, 12.0], theirs=[2.0, 3.0, 2.5])  # 4.8, from 4.53 to 5.59
    for low, verdict in ((4.5, Verdict.HOLDS), (4.7, Verdict.OPEN), (5.6, Verdict.FAILS)):
        rule = Within(arm="ours", figure="auc", over="theirs", low=low, sure=True)
        assert verdict_of(rule.findings(results, ["films"])) is verdict
    alone = results_of(ours=[10.0], theirs=[2.0])
    assert verdict_of(rule.findings(alone, ["films"])) is Verdict.OPEN


def test_ordered_looks_at_neighbours() -> None:
    results = results_of(a=[0.9], b=[0.8], c=[0.805])
    findings = Ordered(order=("a", "b", "c"), figure="auc").findings(results, ["films"])
    assert [finding.holds for finding in findings] == [True, False]
    assert all(
        finding.holds
        for finding in Ordered(order=("a", "b", "c"), figure="auc", slack=0.01).findings(results, ["films"])
    )


def test_what_is_missing_is_not_judged() -> None:
    results = results_of(better=[0.7, 0.7])
    for rule in (
        Above(arm="better", others=("plain",), figure="auc"),
        Within(arm="better", figure="auc", low=0, over="plain"),
        Ordered(order=("better", "plain"), figure="auc"),
    ):
        findings = rule.findings(results, ["films", "books"])
        assert [finding.holds for finding in findings] == [None, None]
        assert verdict_of(findings) is Verdict.OPEN


def test_a_figure_that_is_no_number_is_not_judged() -> None:
    results = results_of(better=[math.nan, 0.7], plain=[0.6, 0.6])
    for rule in (
        Above(arm="better", others=("plain",), figure="auc", sure=False),
        Within(arm="better", figure="auc", low=0),
        Ordered(order=("better", "plain"), figure="auc", slack=1.0),
    ):
        findings = rule.findings(results, ["films"])
        assert [finding.holds for finding in findings] == [None]
        assert verdict_of(findings) is Verdict.OPEN


def test_a_rule_may_ask_for_some_cases_only() -> None:
    rule = Above(arm="better", others=("plain",), figure="auc", cases=("books",))
    assert rule.findings(results_of(better=[1.0]), ["films"]) == []
    assert "on books" in rule.describe()


def test_a_rule_has_another_checksum_exactly_if_it_asks_for_something_else() -> None:
    rules: list[Rule] = [
        Above(arm="a", others=("b",), figure="auc"),
        Above(arm="a", others=("b",), figure="auc", margin=0.01),
        Above(arm="a", others=("b",), figure="auc", sure=False),
        Above(arm="a", others=("b", "c"), figure="auc"),
        Within(arm="a", figure="auc", low=0.5),
        Within(arm="a", figure="auc", low=0.5 + 1e-12),
        Within(arm="a", figure="auc", high=0.5),
        Ordered(order=("a", "b"), figure="auc"),
    ]
    assert len({checksum_of_rule(rule) for rule in rules}) == len(rules)
    assert checksum_of_rule(rules[0]) != _first(rules[0], others=("b",))  # when two seeds were enough to be sure
    assert checksum_of_rule(rules[2]) == _first(rules[2], others=("b",), sure=False)  # which asks what it asked
    ratio = Within(arm="a", figure="auc", high=0.5, over="b")
    assert checksum_of_rule(ratio) != _first(ratio, high=0.5, over="b")  # when ratios were not paired by seed
    said_again = Above(arm="a", others=("b",), figure="auc", margin=0.0, sure=True, cases=None)
    assert checksum_of_rule(said_again) == checksum_of_rule(rules[0])


def _first(rule: Rule, **asked: object) -> str:
    """The checksum of a rule of ``a``'s AUC, with what else is not the default, before any rule had a version."""
    told = sorted({"arm": "a", "figure": "auc", **asked}.items())
    return hashlib.blake2b(f"{type(rule).__name__} {told}".encode(), digest_size=8).hexdigest()


@pytest.mark.parametrize(
    ("rule", "marks", "checksum"),
    [
        (Above(arm="a", others=("b",), figure="auc"), (None, None, True, None, False), "5f9b5dff6ae12d6c"),
        (Above(arm="a", others=("b",), figure="auc", sure=False), (True, True, True, True, True), "901f188c246bf4fd"),
        (Within(arm="a", figure="auc", low=0.55), (False, True, True, False, True), "1ea4c68babbe0d64"),
        (Within(arm="a", figure="auc", low=0.55, sure=True), (None, None, None, False, None), "8cd42af41c4af3a8"),
        (Within(arm="a", figure="auc", low=0.12, minus="b"), (False, True, False, False, True), "09327acde53b9377"),
        (Within(arm="a", figure="auc", high=1.3, over="b"), (True, False, True, True, False), "be63f172f035721f"),
        (Ordered(order=("b", "a"), figure="auc", slack=0.12), (True, False, True, True, False), "755fa1498972ad3d"),
    ],
)
def test_whoever_changes_how_a_rule_judges_gives_it_another_checksum(
    rule: Rule, marks: tuple[bool | None, ...], checksum: str
) -> None:
    """Cells keep these checksums: new marks beside an old one would say that a rule stood which came after them."""
    results = [
        results_of(a=[0.5], b=[0.4]),
        results_of(a=[0.5, 0.7], b=[0.4, 0.5]),
        results_of(a=[0.5, 0.6, 0.7], b=[0.4, 0.5, 0.6]),
        results_of(a=[0.5, 0.5], b=[0.4, 0.4, 0.9]),  # of the third seed there is no pair
        results_of(a=[0.5, 0.5, 0.9], b=[0.6, 0.4, 0.4]),
    ]
    found = tuple(rule.findings(one, ["films"])[0].holds for one in results)
    assert (found, checksum_of_rule(rule)) == (marks, checksum), "say in `versions` what is new"


@pytest.mark.property
@given(st.lists(st.sampled_from([True, False, None]), max_size=12))
def test_the_verdict_counts_what_was_judged(marks: list[bool | None]) -> None:
    verdict = verdict_of([Finding(case="films", what="auc", needed="> 0", holds=mark) for mark in marks])
    good, bad = marks.count(True), marks.count(False)
    expected = {
        Verdict.OPEN: good + bad == 0,
        Verdict.HOLDS: good > 0 and bad == 0,
        Verdict.PARTLY: bad > 0 and good >= bad,
        Verdict.FAILS: bad > good,
    }
    assert [one for one, is_it in expected.items() if is_it] == [verdict]
