"""The table beside its peers: `python benchmarks/table/peers.py --peers DIR [--dims 16 32 64] [--out FILE]`.

Every contender is a process of one thread that gets the same ids (Zipf 1.05 over 10 M, the ranks strewn) in batches
of 65,536, and they take turns batch by batch. A *look-up* reads ids that have rows; a *step* reads a batch with its new
ids and sends each row its gradient. Rates are keys a second of processor time, as other programs may run. FBGEMM and
torch's static array need no hashing: their ids are row numbers; the others take any id. DIR holds one virtual
environment for each peer; one that is missing is passed over by name:

    fbgemm                torch==2.13.0 numpy tensordict torchmetrics==1.0.3 tqdm pyre-extensions iopath psutil orjson,
                          then --no-deps fbgemm-gpu-cpu==1.8.0 torchrec==1.8.0
    recommenders-addons   tensorflow==2.16.2 tf-keras==2.16.0 tensorflow-recommenders-addons==0.8.1 "numpy<2"

The payload is the vector, its optimiser state and, where there is one, the key. *Held* bytes a row are counted by the
contender itself: what the table tells, the size of every array over the rows that it has room for, and of the dict and
its numbers over its entries. Resident bytes a row are what the process grew by since the contender was made, over the
rows that were made by then: of a static array they leave out what was written as it was made, and in all they count
the batches' own memory as well. Where a library tells nothing, they are all there is.
"""

# ruff: noqa: PLC0415 - each contender imports in an environment of its own
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

ID_COUNT = 10_000_000
EXPONENT = 1.05
BATCH = 65_536
RATE = 0.05


class Dolmen:
    """This project's table, by its public calls."""

    is_hashed, venv = True, None

    def __init__(self, dim: int, optimizer: str) -> None:
        from dolmen.embedding import SGD, AdaGrad, Table

        self.table = Table(
            dim, optimizer=AdaGrad(learning_rate=RATE) if optimizer == "adagrad" else SGD(learning_rate=RATE)
        )
        self.now = 0

    def held_bytes_per_row(self) -> float | None:
        return self.table.memory().total_bytes / len(self.table)

    def lookup(self, ids: Any) -> Any:
        return self.table.lookup(ids)

    def step(self, ids: Any, grads: Any) -> Any:
        self.now += 1
        rows = self.table.lookup_or_insert(ids, self.now)
        self.table.apply_gradients(ids, grads, is_checked=True)  # no peer looks for NaN either
        return rows


class TorchStatic:
    """torch.nn.EmbeddingBag(sparse=True), one id a bag; the ids are row numbers."""

    is_hashed, venv = False, "fbgemm"

    def __init__(self, dim: int, optimizer: str, rows: int = ID_COUNT) -> None:
        import torch

        torch.set_num_threads(1)
        self.torch = torch
        weight = torch.zeros(rows, dim)  # Pages that no id needs are never there.
        self.bag = torch.nn.EmbeddingBag(rows, dim, sparse=True, mode="sum", _weight=weight)
        kind = torch.optim.Adagrad if optimizer == "adagrad" else torch.optim.SGD
        self.optimizer = kind(self.bag.parameters(), lr=RATE)
        self.offsets = torch.arange(BATCH)
        self.row_count = rows

    def held_bytes_per_row(self) -> float | None:
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(one.nbytes for one in [*self.bag.parameters(), *states] if one.numel() > 1) / self.row_count

    def rows_of(self, ids: Any) -> Any:
        return self.torch.from_numpy(ids)

    def lookup(self, ids: Any) -> Any:
        with self.torch.no_grad():
            return self.bag(self.rows_of(ids), self.offsets).numpy()

    def step(self, ids: Any, grads: Any) -> Any:
        self.optimizer.zero_grad()
        out = self.bag(self.rows_of(ids), self.offsets)
        out.backward(self.torch.from_numpy(grads))
        self.optimizer.step()
        return out.detach().numpy()


class TorchDict(TorchStatic):
    """The same behind a Python dict from id to row number: how a small project begins."""

    is_hashed = True

    def __init__(self, dim: int, optimizer: str) -> None:
        super().__init__(dim, optimizer)
        self.places: dict[int, int] = {}

    def held_bytes_per_row(self) -> float | None:
        size = sys.getsizeof(self.places) + sum(sys.getsizeof(one) for pair in self.places.items() for one in pair)
        array = super().held_bytes_per_row()
        assert array is not None
        return array + size / len(self.places)

    def rows_of(self, ids: Any) -> Any:
        places = self.places
        found = [places.setdefault(one, len(places)) for one in ids.tolist()]
        return self.torch.tensor(found)


class Fbgemm:
    """FBGEMM's table-batched embeddings on the CPU: a static array, the optimiser fused; the ids are row numbers."""

    is_hashed, venv = False, "fbgemm"

    def __init__(self, dim: int, optimizer: str, rows: int = ID_COUNT) -> None:
        import torch
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )

        torch.set_num_threads(1)
        self.torch = torch
        kind = EmbOptimType.EXACT_ADAGRAD if optimizer == "adagrad" else EmbOptimType.EXACT_SGD
        spec = [(rows, dim, EmbeddingLocation.HOST, ComputeDevice.CPU)]
        self.bags = SplitTableBatchedEmbeddingBagsCodegen(spec, optimizer=kind, learning_rate=RATE)
        self.offsets = torch.arange(BATCH + 1)
        self.row_count = rows

    def held_bytes_per_row(self) -> float | None:
        return sum(one.nbytes for one in [*self.bags.parameters(), *self.bags.buffers()]) / self.row_count

    def rows_of(self, ids: Any) -> Any:
        return self.torch.from_numpy(ids)

    def lookup(self, ids: Any) -> Any:
        with self.torch.no_grad():
            return self.bags(self.rows_of(ids), self.offsets).numpy()

    def step(self, ids: Any, grads: Any) -> Any:
        out = self.bags(self.rows_of(ids), self.offsets)
        out.backward(self.torch.from_numpy(grads))
        return out.detach().numpy()


class ManagedCollision(Fbgemm):
    """torchrec's managed collision before FBGEMM's array. An id that came since the last eviction shares one row."""

    is_hashed = True

    def __init__(self, dim: int, optimizer: str) -> None:
        super().__init__(dim, optimizer, 2_000_000)
        from torchrec.modules.mc_modules import DistanceLFU_EvictionPolicy, MCHManagedCollisionModule
        from torchrec.sparse.jagged_tensor import JaggedTensor

        self.jagged = JaggedTensor
        self.module = MCHManagedCollisionModule(
            zch_size=self.row_count,
            device=self.torch.device("cpu"),
            eviction_policy=DistanceLFU_EvictionPolicy(),
            eviction_interval=4,
            input_hash_size=1 << 62,
        )

    def held_bytes_per_row(self) -> float | None:
        array = super().held_bytes_per_row()
        assert array is not None
        return array + sum(one.nbytes for one in self.module.buffers()) / self.row_count

    def features(self, ids: Any) -> Any:
        return {"ids": self.jagged(self.torch.from_numpy(ids), lengths=self.torch.ones(BATCH, dtype=self.torch.int64))}

    def rows_of(self, ids: Any) -> Any:
        with self.torch.no_grad():
            return self.module.remap(self.features(ids))["ids"].values()

    def step(self, ids: Any, grads: Any) -> Any:
        with self.torch.no_grad():
            self.module.profile(self.module.preprocess(self.features(ids)))
        return super().step(ids, grads)


class RecommendersAddons:
    """TensorFlow recommenders-addons' cuckoo table."""

    is_hashed, venv = True, "recommenders-addons"

    def __init__(self, dim: int, optimizer: str) -> None:
        import tensorflow as tf
        import tf_keras
        from tensorflow_recommenders_addons import dynamic_embedding as de

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        variable = de.get_variable("rows", tf.int64, tf.float32, dim=dim, initializer=0.0, init_size=1 << 20)
        legacy = tf_keras.optimizers.legacy
        plain = legacy.Adagrad(RATE) if optimizer == "adagrad" else legacy.SGD(RATE)
        trainer = de.DynamicEmbeddingOptimizer(plain)

        self.tf, self.de, self.variable, self.trainer = tf, de, variable, trainer

    def held_bytes_per_row(self) -> float | None:
        return None  # It tells how many rows there are, not how large they are.

    def lookup(self, ids: Any) -> Any:
        return self.variable.lookup(self.tf.constant(ids)).numpy()

    def step(self, ids: Any, grads: Any) -> Any:
        # The library gives its trainable rows to eager code only.
        with self.tf.GradientTape() as tape:
            rows, shadow = self.de.embedding_lookup_unique(
                self.variable, self.tf.constant(ids), return_trainable=True, name="rows_read"
            )
            loss = self.tf.reduce_sum(rows * grads)
        self.trainer.apply_gradients([(tape.gradient(loss, shadow), shadow)])
        return rows.numpy()


CONTENDERS: dict[str, Any] = {
    "dolmen": Dolmen,
    "fbgemm, static": Fbgemm,
    "torch, static": TorchStatic,
    "torch, dict": TorchDict,
    "torchrec managed collision": ManagedCollision,
    "recommenders-addons": RecommendersAddons,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, required=True, help="folder of the peers' environments")
    parser.add_argument("--dims", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--optimizers", nargs="+", default=["sgd", "adagrad"], choices=["sgd", "adagrad"])
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--warm-batches", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the JSON here; runs that it has already are kept")
    parser.add_argument("--be", help=argparse.SUPPRESS)
    parser.add_argument("--ids", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be:
        contend(options.be, options.dims[0], options.optimizers[0], Path(options.ids))
        return
    from report import source

    report: dict[str, Any] = {"runs": []}
    if options.out and options.out.exists():
        report = json.loads(options.out.read_text())
    report |= {**source(options, peers="DIR"), "seed": 1, "batch": BATCH}
    report["ids"] = f"zipf {EXPONENT} over {ID_COUNT}"
    with TemporaryDirectory() as folder:
        ids = Path(folder) / "ids.npy"
        np.save(ids, make_ids(options.warm_batches + options.repeats))
        for dim in options.dims:
            for optimizer in options.optimizers:
                run = compete(options, dim, optimizer, ids)
                is_new = [one for one in report["runs"] if (one["dim"], one["optimizer"]) != (dim, optimizer)]
                report["runs"] = sorted([*is_new, run], key=lambda one: (one["dim"], one["optimizer"]))
                show(run)
                if options.out:
                    options.out.parent.mkdir(parents=True, exist_ok=True)
                    options.out.write_text(json.dumps(report, indent=1) + "\n")


def make_ids(batch_count: int) -> np.ndarray:
    """Batches of ids below ID_COUNT, shape (batch_count, BATCH): which rank an id has is strewn over all numbers."""
    random = np.random.default_rng(1)
    ends = np.cumsum(np.arange(1, ID_COUNT + 1, dtype=np.float64) ** -EXPONENT)
    ranks = np.searchsorted(ends, random.random((batch_count, BATCH)) * ends[-1])
    return (ranks.astype(np.int64) * 7_368_787 + 12_345) % ID_COUNT  # The factor is prime, so no two ranks meet.


def compete(options: argparse.Namespace, dim: int, optimizer: str, ids: Path) -> dict[str, Any]:
    """All contenders, turn by turn, at one dim and with one optimiser."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "TF_USE_LEGACY_KERAS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "",
    }
    processes: dict[str, subprocess.Popen[str]] = {}
    skipped: dict[str, str] = {}
    results: dict[str, Any] = {}

    def ask(name: str, question: str) -> dict[str, Any] | None:
        process = processes[name]
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(question + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())
        except (OSError, ValueError):
            process.kill()
            error = (process.stderr.read() if process.stderr else "").strip().splitlines()
            skipped[name] = error[-1] if error else "it ended without a word"
            del processes[name]
            results.pop(name, None)
            return None

    for name in options.contenders:
        venv = CONTENDERS[name].venv
        python = Path(sys.executable) if venv is None else options.peers / venv / "bin" / "python"
        if not python.exists():
            skipped[name] = f"{options.peers / venv} is not there"
            continue
        arguments = ["--peers", str(options.peers), "--be", name, "--ids", str(ids)]
        processes[name] = subprocess.Popen(
            [python, __file__, *arguments, "--dims", str(dim), "--optimizers", optimizer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
    for name in list(processes):
        for number in range(options.warm_batches):
            if ask(name, f"step {number}") is None:
                break
    for name in processes:
        results[name] = {"lookup_keys_per_second": [], "step_keys_per_second": []}
    for repeat in range(options.repeats):
        for name in list(processes):
            for kind, number in (("step", options.warm_batches + repeat), ("lookup", repeat % options.warm_batches)):
                answer = ask(name, f"{kind} {number}")
                if answer is None:
                    break
                results[name][f"{kind}_keys_per_second"].append(round(BATCH / answer["seconds"]))
    seen = np.load(ids, mmap_mode="r")
    rows = len(np.unique(seen))
    for name in list(processes):
        answer = ask(name, "end 0")
        if answer is not None:
            payload = 4 * dim * (2 if optimizer == "adagrad" else 1) + (8 if CONTENDERS[name].is_hashed else 0)
            results[name] |= {
                "is_hashed": CONTENDERS[name].is_hashed,
                "held_bytes_per_row": answer["held_bytes_per_row"],
                "resident_bytes_per_row": round(answer["grown_bytes"] / rows, 1),
                "payload_bytes_per_row": payload,
                "checksum": answer["checksum"],
            }
            processes[name].wait()
    return {"dim": dim, "optimizer": optimizer, "rows": rows, "contenders": results, "skipped": skipped}


def contend(name: str, dim: int, optimizer: str, ids: Path) -> None:
    """Be one contender: answer each line of the input, ``step NUMBER``, ``lookup NUMBER`` or ``end 0``."""
    answers, sys.stdout = sys.stdout, sys.stderr  # What a peer prints must not mix with our answers.
    contender = CONTENDERS[name](dim, optimizer)
    batches = np.load(ids)
    grads = np.random.default_rng(2).normal(0, 0.01, (BATCH, dim)).astype(np.float32)
    begin, checksum = resident_bytes(), 0.0
    for line in sys.stdin:
        kind, number = line.split()
        if kind == "end":
            held = contender.held_bytes_per_row()
            answer = {
                "grown_bytes": resident_bytes() - begin,
                "held_bytes_per_row": None if held is None else round(held, 1),
                "checksum": round(checksum, 4),
            }
            print(json.dumps(answer), file=answers, flush=True)
            return
        batch = np.ascontiguousarray(batches[int(number)])
        start = time.process_time()
        rows = contender.step(batch, grads) if kind == "step" else contender.lookup(batch)
        seconds = time.process_time() - start
        checksum += float(rows[::997].sum())
        print(json.dumps({"seconds": seconds}), file=answers, flush=True)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def show(run: dict[str, Any]) -> None:
    print(f"\ndim {run['dim']}, {run['optimizer']}, {run['rows']:,} rows")
    ours = run["contenders"].get("dolmen")
    for name, one in run["contenders"].items():
        lookup, step = (statistics.median(one[f"{kind}_keys_per_second"]) for kind in ("lookup", "step"))
        ratio = statistics.median(ours["step_keys_per_second"]) / step if ours else float("nan")
        print(
            f"  {name:28}look-up {lookup / 1e6:7.2f} M/s   step {step / 1e6:6.2f} M/s   dolmen's step {ratio:5.2f} x   "
            f"held {one['held_bytes_per_row'] or float('nan'):7.1f} B, resident {one['resident_bytes_per_row']:7.1f} B "
            f"of {one['payload_bytes_per_row']} B payload"
        )
    for name, why in run["skipped"].items():
        print(f"  {name:28}skipped: {why}")


if __name__ == "__main__":
    sys.exit(main())
