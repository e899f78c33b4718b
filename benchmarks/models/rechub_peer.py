"""torch-rechub's DIN, trained for one pass and judged on the same examples; run by ctr.py in its environment.

``python rechub_peer.py told.json``
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.ranking import DIN


def columns(folder: Path, part: str) -> dict[str, torch.Tensor]:
    with np.load(folder / f"{part}.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    folder, dim, batch = Path(told["folder"]), told["width"], told["batch"]
    torch.set_num_threads(1)
    torch.manual_seed(told["seed"])
    item = SparseFeature("item", vocab_size=told["items"], embed_dim=dim, padding_idx=0)
    brand = SparseFeature("brand", vocab_size=told["brands"], embed_dim=dim, padding_idx=0)
    past = SequenceFeature(
        "history", vocab_size=told["items"], embed_dim=dim, pooling="concat", shared_with="item", padding_idx=0
    )
    model = DIN(
        [brand],
        [past],
        [item],
        mlp_params={"dims": told["hidden"]},
        attention_mlp_params={"dims": told["attention_hidden"], "activation": "dice"},
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    loss_of = torch.nn.BCELoss()
    train, test = columns(folder, "train"), columns(folder, "test")
    count = len(train["order"])
    model.train()
    started = time.perf_counter()
    # Its own loader collates one example after the other; whole batches are faster, and that is what is compared.
    for rows in torch.split(train["order"], batch):
        taken = {name: train[name][rows] for name in ("item", "brand", "history")}
        loss = loss_of(model(taken), train["label"][rows])
        model.zero_grad()
        loss.backward()
        optimizer.step()
    seconds = time.perf_counter() - started
    model.eval()
    with torch.no_grad():
        scores = [
            model({name: test[name][rows] for name in ("item", "brand", "history")})
            for rows in torch.split(torch.arange(len(test["label"])), 4096)
        ]
    np.save(folder / "scores.npy", torch.cat(scores).numpy())
    print("RESULT " + json.dumps({"seconds": seconds, "examples": count}))


if __name__ == "__main__":
    main()
