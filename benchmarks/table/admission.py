"""What admission saves and costs: `python benchmarks/table/admission.py [--examples N] [--seeds N] [--out FILE]`.

A stream of (user, item) with Zipf items, whose click follows the logistic truth of a user's and an item's bias. One
pass learns it, predicting before learning; the table's rows are biases. Each way of admission, at five sights before
the sixth makes the row (a threshold of 5), is compared with a row at once: rows, bytes, and the AUC over the second
half of the stream; and exact counts with lower thresholds. The share of ids with at most five sights is what exact
admission must save in rows. What is lost is told apart: the AUC that is lost where only the examples at the first
sights of an item, those without a row, are scored as with admission; the rest comes from rows that begin late.
"""

import argparse
import statistics
import sys
from typing import Any

import numpy as np
from report import add_out, begin_report, write_report

from dolmen.embedding import AdaGrad, RowRules, Table
from dolmen.evaluation import auc
from dolmen.features import Admission

THRESHOLD = 5
BATCH = 1024
USERS, ITEMS = 1 << 53, 2 << 53  # First FIDs of two slots.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--exponent", type=float, default=1.2, help="of the Zipf law of items")
    parser.add_argument("--seeds", type=int, default=3)
    add_out(parser)
    options = parser.parse_args()

    report = begin_report(
        options,
        threshold=THRESHOLD,
        examples=options.examples,
        items=options.items,
        exponent=options.exponent,
        seeds=list(range(options.seeds)),
        runs=[],
    )
    ways = {str(kind): RowRules(admit_after=THRESHOLD + 1, admission=kind) for kind in Admission}
    ways |= {f"exact, sight {n}": RowRules(admit_after=n) for n in (2, 3, 4)}
    for seed in range(options.seeds):
        users, items, clicks = stream(options.examples, options.items, options.exponent, seed)
        counts = np.bincount(items)
        rare_share = float((counts[counts > 0] <= THRESHOLD).mean())
        judged = slice(len(clicks) // 2, None)
        sights = sights_before(items)[judged]
        at_once, best = learn(users, items, clicks, RowRules(), seed)
        for name, rules in {"at once": RowRules(), **ways}.items():
            run, scores = learn(users, items, clicks, rules, seed)
            run = {"seed": seed, "admission": name, "rare_share": rare_share, **run}
            run["rows_saved"] = 1 - run["item_rows"] / at_once["item_rows"]
            run["auc_lost"] = at_once["auc"] - run["auc"]
            first = sights < rules.admit_after - 1
            mixed = np.where(first, scores[judged], best[judged])
            run["first_share"] = float(first.mean())
            run["auc_lost_at_first_sights"] = at_once["auc"] - float(auc(mixed, clicks[judged]))
            report["runs"].append(run)
    show(report)
    write_report(report, options.out)


def sights_before(items: Any) -> Any:
    """How often the item of each example came before it."""
    order = np.argsort(items, kind="stable")
    ordered = items[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sights = np.empty(len(items), dtype=np.int64)
    sights[order] = np.arange(len(items)) - np.repeat(begins, np.diff(np.r_[begins, len(items)]))
    return sights


def stream(count: int, item_count: int, exponent: float, seed: int) -> tuple[Any, Any, Any]:
    """Users, items and clicks, in order."""
    rng = np.random.default_rng(seed)
    shares = np.arange(1, item_count + 1) ** -exponent
    items = rng.choice(item_count, size=count, p=shares / shares.sum())
    users = rng.integers(0, 1000, size=count)
    logits = rng.normal(size=1000)[users] + rng.normal(size=item_count)[items] - 1.0
    return users, items, (rng.random(count) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def learn(users: Any, items: Any, clicks: Any, rules: RowRules, seed: int) -> tuple[dict[str, Any], Any]:
    """One pass: biases of user and item by AdaGrad on the log loss. What came of it, and the scores."""
    table = Table(8, optimizer=AdaGrad(learning_rate=0.3), seed=seed, initial_range=0.0, rules={2: rules})
    scores = np.empty(len(clicks), dtype=np.float32)
    for begin in range(0, len(clicks), BATCH):
        part = slice(begin, begin + BATCH)
        fids = np.concatenate([USERS + users[part], ITEMS + items[part]])
        size = len(fids) // 2
        biases = table.lookup_or_insert(fids, begin)[:, 0]
        scores[part] = biases[:size] + biases[size:]
        gradient = np.zeros((len(fids), 8), dtype=np.float32)
        gradient[:, 0] = np.tile(1 / (1 + np.exp(-scores[part])) - clicks[part], 2)
        table.apply_gradients(fids, gradient)
    half = len(clicks) // 2
    memory = table.memory()
    found = {
        "item_rows": table.slots()[2],
        "row_and_index_bytes": memory.row_bytes + memory.index_bytes,
        "waiting_bytes": memory.pending_bytes,
        "failures": table.admission_failures(2),
        "auc": float(auc(scores[half:], clicks[half:])),
    }
    return found, scores


def show(report: dict[str, Any]) -> None:
    heads = ("rows", 10), ("saved", 8), ("rare ids", 10), ("rows, index", 13), ("waiting", 10), ("AUC", 8), ("lost", 9)
    heads = *heads, ("at first sights", 17), ("their share", 13)
    print(f"{'admission':15}" + "".join(f"{head:>{width}}" for head, width in heads))
    for name in dict.fromkeys(run["admission"] for run in report["runs"]):
        runs = [run for run in report["runs"] if run["admission"] == name]
        mean = {key: statistics.fmean(run[key] for run in runs) for key in runs[0] if key not in ("seed", "admission")}
        print(
            f"{name:15}{mean['item_rows']:>10,.0f}{mean['rows_saved']:>8.3f}{mean['rare_share']:>10.3f}"
            f"{mean['row_and_index_bytes'] / 1e6:>10.1f} MB{mean['waiting_bytes'] / 1e6:>7.1f} MB"
            f"{mean['auc']:>8.4f}{mean['auc_lost']:>9.4f}{mean['auc_lost_at_first_sights']:>17.4f}"
            f"{mean['first_share']:>13.3f}"
        )


if __name__ == "__main__":
    sys.exit(main())
