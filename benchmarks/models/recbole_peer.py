"""RecBole's SASRec or BERT4Rec, trained for some seconds and ranked like ours; run by sequence.py in its environment.

``python recbole_peer.py told.json``
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    config = Config(
        model=told["model"],
        dataset="films",
        config_dict={
            "data_path": told["folder"],
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "MAX_ITEM_LIST_LENGTH": told["length"],
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
            "train_neg_sample_args": None,
            "loss_type": "CE",
            "train_batch_size": told["batch"],
            "eval_batch_size": 256,
            "use_gpu": False,
            "seed": told["seed"],
            "reproducibility": False,
            "show_progress": False,
            "state": "ERROR",
            **told["options"],
        },
    )
    init_seed(told["seed"], reproducibility=False)
    dataset = create_dataset(config)
    train, _, test = data_preparation(config, dataset)
    model = get_model(told["model"])(config, train.dataset).to("cpu")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)

    model.train()
    examples, started = 0, time.perf_counter()
    while time.perf_counter() - started < told["seconds"]:
        for interaction in train:
            optimizer.zero_grad()
            loss = model.calculate_loss(interaction)
            loss.backward()
            optimizer.step()
            examples += len(interaction)
            if time.perf_counter() - started >= told["seconds"]:
                break
    seconds = time.perf_counter() - started

    model.eval()
    users, items = dataset.field2token_id["user_id"], dataset.field2token_id["item_id"]
    token_of = {number: token for token, number in users.items()}
    ranks = {}
    with torch.no_grad():
        for interaction, *_, right in test:
            scores = model.full_sort_predict(interaction).view(len(interaction), -1).numpy()[:, : dataset.item_num]
            for row, user, item in zip(scores, interaction["user_id"].tolist(), right.tolist(), strict=True):
                past = [items[token] for token in told["pasts"][token_of[user]]]
                own = row[item]
                row[[0, *past]] = -np.inf  # 0 is padding
                ranks[token_of[user]] = 1 + int((row > own).sum())
    result = {"examples": examples, "seconds": seconds, "train_examples": len(train.dataset), "ranks": ranks}
    sys.stdout.write("\nRESULT " + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
