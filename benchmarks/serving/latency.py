"""Latency of a running server under a steady load: requests are due at their time, whether or not others are back.

    dolmen up --config state/dolmen.toml &
    python benchmarks/serving/latency.py http://127.0.0.1:8080 --recommend 25 --rank 100 --events 100 --seconds 30

Latency counts from when a request was due, so a stall is not hidden by the requests that it kept from being sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np


class Connections:
    """Keep-alive connections to one address, with as little of a client as there can be: it shares the machine."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port or 80
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        if not self._free:
            self._free.append(await asyncio.open_connection(self._host, self._port))
        reader, writer = self._free.pop()
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        answered = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(answered.partition("content-length:")[2].partition("\r\n")[0])
        content = await reader.readexactly(size)
        self._free.append((reader, writer))
        return int(answered.split()[1]), json.loads(content)

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()


class Load:
    """Sends requests of each kind at a steady rate."""

    def __init__(self, connections: Connections, people: list[Any], items: list[Any], seed: int) -> None:
        self._connections, self._people, self._items = connections, people, items
        self._random = random.Random(seed)
        self._shown: list[tuple[Any, Any, str]] = []
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.statuses: dict[str, Counter[int]] = defaultdict(Counter)

    def body(self, kind: str) -> tuple[str, dict[str, Any]]:
        person = self._random.choice(self._people)
        if kind == "recommend":
            return "/v1/recommend", {"user": person, "count": 10}
        if kind == "rank":
            return "/v1/rank", {"user": person, "items": self._random.sample(self._items, 10)}
        user, item, request_id = self._shown.pop() if self._shown else (person, self._items[0], "none")
        event = {"user": user, "item": item, "kind": "click", "request_id": request_id}
        return "/v1/events", {"events": [event]}

    async def run(self, kind: str, rate: float, until: float) -> None:
        tasks: set[asyncio.Task[None]] = set()
        due = time.perf_counter() + self._random.random() / rate
        while due < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(self.one(kind, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            due += 1 / rate
        await asyncio.gather(*tasks)

    async def one(self, kind: str, due: float) -> None:
        path, body = self.body(kind)
        status, slate = await self._connections.ask("POST", path, body)
        self.seconds[kind].append(time.perf_counter() - due)
        self.statuses[kind][status] += 1
        if kind == "rank" and status == 200 and len(self._shown) < 1000:
            self._shown.append((body["user"], slate["items"][0]["item"], slate["request_id"]))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    connections = Connections(options.address)
    people = [one["id"] for one in (await connections.ask("GET", "/v1/users?limit=100"))[1]["users"]] or [1]
    load = Load(connections, people, list(range(1, options.items + 1)), options.seed)
    _, before = await connections.ask("GET", "/v1/status")
    until = time.perf_counter() + options.seconds
    rates: dict[str, float] = {kind: getattr(options, kind) for kind in ("recommend", "rank", "events")}
    await asyncio.gather(*(load.run(kind, rate, until) for kind, rate in rates.items() if rate > 0))
    _, after = await connections.ask("GET", "/v1/status")
    connections.close()
    return {
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
        "seconds": options.seconds,
        "trained": (after["now"]["examples_total"] or 0) - (before["now"]["examples_total"] or 0),
        "kinds": {kind: summary(load, kind, rates[kind]) for kind in load.seconds},
    }


def summary(load: Load, kind: str, rate: float) -> dict[str, Any]:
    def percentile(percent: float) -> float:
        return float(np.percentile(load.seconds[kind], percent)) * 1e3

    return {
        "per_second": rate,
        "count": len(load.seconds[kind]),
        "statuses": dict(load.statuses[kind]),
        "p50_ms": percentile(50),
        "p90_ms": percentile(90),
        "p99_ms": percentile(99),
        "max_ms": percentile(100),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--recommend", type=float, default=25, help="requests a second")
    parser.add_argument("--rank", type=float, default=100, help="of ten items each")
    parser.add_argument("--events", type=float, default=100, help="of one event each")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--items", type=int, default=1682, help="item ids from 1 to this are ranked")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the results here")
    options = parser.parse_args()
    results = asyncio.run(measure(options))
    print(json.dumps(results, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
