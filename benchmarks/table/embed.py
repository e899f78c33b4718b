"""How much of a look-up through `Embed` is Python: `python benchmarks/table/embed.py [--out FILE]`.

Batches of 65,536 ids, one torch thread: `Embed` reads two single slots, pools a slot of many values, and does a step of
learning (look-up, backward through the vectors' sum of squares, tape). Beside each: the table's own calls on the same
ids, which run in C++ with the GIL released; and the same call on a batch of two examples, which is what a call costs
whatever its size: Python, and torch's dispatch. All by turns, in the processor's time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from report import add_out, begin_report, write_report

from dolmen.embedding import AdaGrad, Embed, Embeddings
from dolmen.features import Batch, Jagged, Schema, Slot, pack_fids

IDS, ROWS, DIM, LENGTH, SEED = 65_536, 1_000_000, 32, 8, 1
SLOTS = {"user": 1, "item": 2, "tags": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    add_out(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    report = begin_report(options, seed=SEED, ids=IDS, rows=ROWS, dim=DIM, runs=[])
    schema = Schema(Slot("user", dim=DIM), Slot("item", dim=DIM), Slot("tags", dim=DIM, many=True))
    embeddings = Embeddings(schema, optimizer=AdaGrad(learning_rate=0.05), seed=SEED)
    table = embeddings.table_of("user")
    numbers = {name: schema.slot_number(name) for name in SLOTS}
    for number in numbers.values():
        for begin in range(0, ROWS // 3, IDS):
            ids = np.arange(begin, min(begin + IDS, ROWS // 3))
            table.lookup_or_insert(pack_fids(number, ids), now_us=1)
    embed = Embed(embeddings)
    rng = np.random.default_rng(SEED)

    def single(size: int) -> Batch:
        slots = {
            name: Jagged.single(pack_fids(numbers[name], rng.integers(0, ROWS // 3, size))) for name in ("user", "item")
        }
        return Batch(size=size, slots=slots)

    def many(size: int) -> Batch:
        values = torch.from_numpy(pack_fids(numbers["tags"], rng.integers(0, ROWS // 3, size * LENGTH)))
        return Batch(size=size, slots={"tags": Jagged(values, torch.arange(0, size * LENGTH + 1, LENGTH))})

    def learn(batch: Batch) -> None:
        with embed.recording(now_us=2) as tape:
            embed(batch, ["user", "item"]).square().sum().backward()
            tape.apply()

    fids = torch.cat([column.values for column in single(IDS // 2).slots.values()]).numpy()
    out = np.empty((IDS, DIM), dtype=np.float32)
    gradients = np.full((IDS, DIM), 1e-4, dtype=np.float32)

    def own_step() -> None:
        table.lookup_or_insert(fids, 2)
        table.apply_gradients(fids, gradients)

    cases: dict[str, tuple[Callable[[Batch], Any], Callable[[int], Batch], int, Callable[[], Any]]] = {
        "read two single slots": (lambda b: embed(b, ["user", "item"]), single, 2, lambda: table.lookup(fids, out)),
        "pool a slot of 8 values": (lambda b: embed(b, ["tags"]), many, LENGTH, lambda: table.lookup(fids, out)),
        "learn two single slots": (learn, single, 2, own_step),
    }
    for name, (call, batch_of, ids_each, own) in cases.items():
        whole, small, alone = [], [], []
        large_batch, small_batch = batch_of(IDS // ids_each), batch_of(2)
        for _ in range(options.repeats):
            whole.append(seconds(lambda call=call, batch=large_batch: call(batch)))
            alone.append(seconds(own))
            small.append(seconds(lambda call=call, batch=small_batch: [call(batch) for _ in range(100)]) / 100)
        run = {"name": name, "call_us": whole, "table_alone_us": alone, "call_of_two_us": small}
        for key in ("call_us", "table_alone_us", "call_of_two_us"):
            run[key] = [round(1e6 * one, 2) for one in run[key]]
        call_us, alone_us, two_us = (
            statistics.median(run[key]) for key in ("call_us", "table_alone_us", "call_of_two_us")
        )
        run["python_share"] = two_us / call_us
        report["runs"].append(run)
        print(
            f"  {name:26}{call_us:>9,.0f} us a call, table alone {alone_us:>8,.0f} us, a call of two examples "
            f"{two_us:>6.0f} us: {run['python_share']:.3f} of the call"
        )
    write_report(report, options.out)


def seconds(work: Callable[[], object]) -> float:
    begun = time.thread_time()
    work()
    return time.thread_time() - begun


if __name__ == "__main__":
    main()
