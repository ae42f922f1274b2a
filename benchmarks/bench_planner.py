"""The capacity planner against the embedded server: simulated and measured throughput and latency, user by user.

    python benchmarks/bench_planner.py [--write] [--requests 120] [--users 1 4 16] [--figure FOLDER]

A server in another process answers for both embedded models, one replica each. Users are threads that each send one
sample after another through the funnel, router first, and ask again as soon as they have their answer. Two numbers of
users calibrate: one user alone measures what every call takes, CALIBRATED users together what calls share (from the
server's log). The others are predicted. All numbers of users take turns, ROUNDS times there and back, so that a slow
moment of the machine meets all of them. `--write` puts the table into README.md, and its figure beside it; `--figure`
draws into another folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from bench_confidence import write_between_markers
from scipy.optimize import nnls

from speceyes_lib.agents import prompt_sets
from speceyes_lib.paths import repo_root
from speceyes_lib.replay.fleet import ASIDE, LARGE, NONE, SMALL, Fleet, Workload, simulate_fleet
from speceyes_lib.report.album import Album
from speceyes_lib.tasks.registry import TASKS, load_task
from speceyes_lib.tasks.sample import Sample

USERS = (1, 2, 4, 8, 16, 32, 64)
CALIBRATED = 8
THRESHOLD = 0.99
PER_TASK = 6
ROUNDS = 4
KINDS = {
    20: "draft",
    10: "router",
}  # the allowed new tokens show a call's kind; all others are turns of the agent
POOL = {"draft": SMALL, "router": LARGE, "turn": LARGE}


# ------------------------------------------------------------------ the server, in another process


def serve(log: Path) -> None:
    """Serve both embedded models; every call is logged: kinds of its requests, seconds."""
    from speceyes_lib.demo.server import EMBEDDED, serving
    from speceyes_lib.models.transformers import TransformersBackend

    written = log.open("a", buffering=1)

    class Logged(TransformersBackend):
        def generate(self, requests, unwanted=None):
            start = time.perf_counter()
            generations = super().generate(requests, unwanted)
            kinds = [KINDS.get(r.max_new_tokens, "turn") for r in requests]
            written.write(json.dumps({"kinds": kinds, "s": time.perf_counter() - start}) + "\n")
            return generations

    models = {name: Logged(repo_root() / folder, name, "float32", "cpu") for name, folder in EMBEDDED.items()}
    for model in models.values():
        model.warm_up()
    with serving(models) as url:
        print(url, flush=True)
        threading.Event().wait()


# ------------------------------------------------------------------ users


@dataclass
class Measured:
    """Latency of every request in the order of their ends, when they ended, and the server's calls meanwhile."""

    ended_s: list[float]
    latency_s: list[float]
    kinds: list[int]  # which sample each was
    calls: list[dict]

    def after(self, skip: int) -> tuple[int, float, list[float]]:
        """Requests after the first ones, the seconds until their ends, and their latencies."""
        return (
            len(self.ended_s) - skip,
            self.ended_s[-1] - self.ended_s[skip - 1],
            self.latency_s[skip:],
        )


def summed(rounds: Sequence[Measured], users: int) -> tuple[float, np.ndarray]:
    """Requests per second and latencies of several rounds, each without its warm-up."""
    parts = [r.after(min(max(users, len(r.ended_s) // 5, 1), len(r.ended_s) - 1)) for r in rounds]
    counts, seconds, latencies = zip(*parts, strict=True)
    return sum(counts) / sum(seconds), np.concatenate(latencies)


class Clients:
    """The funnel over the server, for any number of users."""

    def __init__(self, url: str, log: Path, samples: Sequence[Sample]) -> None:
        from speceyes_lib.agents.deepeyes import DeepEyesAgent
        from speceyes_lib.demo.server import EMBEDDED
        from speceyes_lib.models.registry import backend_type

        self.log, self.samples = log, samples
        models = {r: f"{url}?model={r}&processor={EMBEDDED[r]}&concurrency=64" for r in ("draft", "agent")}
        self.draft, self.agent = (backend_type(model).open(model, role) for role, model in models.items())
        self.wording = prompt_sets.load("demo")
        self.make_agent = partial(DeepEyesAgent, spec=self.agent.image_spec, prompts=self.wording)

    def ask(self, sample: Sample) -> None:
        from speceyes_lib.inference.funnel import Gate, Router, run_funnel

        ((record, _),) = run_funnel(
            [sample],
            mode="gated",
            agent_backend=self.agent,
            draft_backend=self.draft,
            make_agent=self.make_agent,
            prompts=self.wording,
            router=Router(),
            gate=Gate(THRESHOLD),
            batch_size=1,
        )
        assert record.status == "ok", record

    def run(self, users: int, requests: int, seed: int) -> Measured:
        """`requests` samples in all, drawn with a seed; every user takes the next as soon as he is answered."""
        kinds = np.random.default_rng(seed).integers(0, len(self.samples), requests + users).tolist()
        if users == 1:  # each sample as often as the other: this run measures what each takes alone
            kinds = list(range(len(self.samples))) * max(1, requests // len(self.samples))
            requests = len(kinds)
        numbers, measured, lock = iter(kinds), Measured([], [], [], []), threading.Lock()
        lines = len(self.log.read_text().splitlines())

        def user() -> None:
            while len(measured.ended_s) < requests:
                with lock:
                    kind = next(numbers, None)
                if kind is None:
                    return
                began = time.perf_counter()
                self.ask(self.samples[kind])
                now = time.perf_counter()
                with lock:
                    measured.ended_s.append(now)
                    measured.latency_s.append(now - began)
                    measured.kinds.append(kind)

        with ThreadPoolExecutor(users) as pool:
            for done in [pool.submit(user) for _ in range(users)]:
                done.result()
        measured.calls = [json.loads(line) for line in self.log.read_text().splitlines()[lines:]]
        del measured.ended_s[requests:], measured.latency_s[requests:], measured.kinds[requests:]
        return measured


# ------------------------------------------------------------------ what the simulation is given


def shared_s(calls: Sequence[dict]) -> dict[int, float]:
    """By pool, the seconds that a call takes however many share it, from calls of several sizes.

    Non-negative least squares on relative errors, as in `replay.cost_model`: else the longest calls decide alone.
    """
    fixed = {}
    for pool in (SMALL, LARGE):
        of_pool = [c for c in calls if POOL[c["kinds"][0]] == pool]
        names = [kind for kind, where in POOL.items() if where == pool]
        design = np.array([[1.0, *(c["kinds"].count(name) for name in names)] for c in of_pool])
        seconds = np.array([c["s"] for c in of_pool])
        solution, _ = nnls(design / seconds[:, None], np.ones(len(seconds)))
        fixed[pool] = float(solution[0])
    return fixed


def workload(alone: Sequence[Measured], together: Sequence[Measured], n: int) -> Workload:
    """Every sample's chain of calls: its seconds as one user alone measured them, the shared part as above.

    A lone user's calls follow each other, so the log shows which belong together. What is left of a sample's latency is
    spent beside the models: pictures, HTTP, and the time that the server waits for company.
    """
    from speceyes_lib.demo.engine import GATHER_S

    fixed = shared_s([call for measured in (*alone, *together) for call in measured.calls])
    chains: dict[int, list[list[tuple[int, float]]]] = {}
    aside: dict[int, list[float]] = {}
    for measured in alone:
        calls = iter(measured.calls)
        following = next(calls, None)
        for kind, latency_s in zip(measured.kinds, measured.latency_s, strict=True):
            chain = []
            while following is not None and not (chain and following["kinds"] == ["router"]):
                chain.append((POOL[following["kinds"][0]], following["s"]))
                following = next(calls, None)
            chains.setdefault(kind, []).append(chain)
            aside.setdefault(kind, []).append(latency_s - sum(s for _, s in chain) - GATHER_S * len(chain))
    width = 1 + max(len(chain[0]) for chain in chains.values())
    pool = np.full((n, width), NONE, np.int8)
    added_s, fixed_s = np.zeros((n, width)), np.zeros((n, width))
    for kind, repeats in chains.items():
        pool[kind, 0], added_s[kind, 0] = ASIDE, max(0.0, float(np.median(aside[kind])))
        for place, (where, _) in enumerate(repeats[0], start=1):
            seconds = float(np.median([chain[place - 1][1] for chain in repeats]))
            pool[kind, place] = where
            added_s[kind, place] = max(seconds - fixed[where], 0.0)
            fixed_s[kind, place] = fixed[where] + GATHER_S
    return Workload(pool, added_s, fixed_s)


def main() -> None:
    from speceyes_lib.demo.benchmark import generate

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true")
    parser.add_argument(
        "--requests", type=int, default=160, help="of each number of users, at least two each"
    )
    parser.add_argument("--users", type=int, nargs="+", default=USERS, help="with 1, which calibrates")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--per-task", type=int, default=PER_TASK, help="samples of each split")
    parser.add_argument("--figure", type=Path, metavar="FOLDER")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    users = sorted({1, *arguments.users})
    calibrated = CALIBRATED if CALIBRATED in users else users[-1]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        root, log = Path(folder) / "benchmark", Path(folder) / "calls.jsonl"
        generate(root, seed=2026)
        samples = [s for task in TASKS for s in load_task(task, root)[: arguments.per_task]]
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(log)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=repo_root(),
        )
        try:
            url = server.stdout.readline().strip()
            log.touch()
            clients = Clients(url, log, samples)
            clients.run(4, 12, 99)  # both sides warm
            runs: dict[int, list[Measured]] = {n: [] for n in users}
            for number in range(arguments.rounds):
                for n in users[:: -1 if number % 2 else 1]:
                    requests = max(arguments.requests // arguments.rounds, 2 * n)
                    runs[n].append(clients.run(n, requests, seed=100 * number + n))
            work = workload(runs[1], runs[calibrated], len(samples))
            fleet = Fleet(1, 1)
        finally:
            server.terminate()
            server.wait()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load before {load:.1f}"
    machine += f"; {arguments.requests} requests each"
    lines = [
        f"Embedded models behind the embedded server, one replica each; {machine}. Simulated / measured.",
        "",
        "| users | requests per s | off | median s | off | 95 % within s | off | mean batch of the agent | |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    off, rows = [], []
    for n in users:
        predicted = simulate_fleet(work, fleet, users=n, requests=4000)
        per_s, latency = summed(runs[n], n)
        pairs = [
            (predicted.throughput_per_s, per_s),
            (predicted.p50_s, float(np.quantile(latency, 0.5))),
            (predicted.p95_s, float(np.quantile(latency, 0.95))),
        ]
        for how, numbers in zip(("predicted", "measured"), zip(*pairs, strict=True), strict=True):
            rows.append(
                {"users": n, "how": how, **dict(zip(("per_s", "p50_s", "p95_s"), numbers, strict=True))}
            )
        cells = "".join(f"{a:.3g} / {b:.3g} | {100 * (a / b - 1):+.0f} % | " for a, b in pairs)
        sizes = [len(c["kinds"]) for real in runs[n] for c in real.calls if c["kinds"][0] != "draft"]
        note = "calibration" if n in (1, calibrated) else "predicted"
        lines.append(f"| {n} | {cells}{predicted.large_batch:.1f} / {np.mean(sizes):.1f} | {note} |")
        if note == "predicted":
            off.append(abs(pairs[0][0] / pairs[0][1] - 1))
    if off:
        median, most = 100 * np.median(off), 100 * max(off)
        lines += ["", f"Predicted throughput is off by {median:.0f} % in the median, {most:.0f} % at most."]
    text = "\n".join(lines)
    print(text)
    here = Path(__file__).parent
    if arguments.write:
        write_between_markers(here / "README.md", "bench_planner", text)
    if folder := here if arguments.write else arguments.figure:
        Album(folder, {"machine": machine}).draw("served_load", pd.DataFrame(rows))


if __name__ == "__main__":
    main()
