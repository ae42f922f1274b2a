"""The paper's whole grid from one pass: `replay` against a loop over samples and settings.

    python benchmarks/bench_replay.py [--write]
    python benchmarks/bench_replay.py --fidelity fidelity [--write]    the finished run of notebook 06, as a table

The loop is what one would first write: for every setting and sample, is it routed, is it accepted, whose answer
counts; per task, with the same scores given to it. Counts and accuracies must be equal, or the script fails.
`replay` also makes intervals and predicted seconds, the loop does not. `--write` puts the tables into README.md
beside this file.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from bench_confidence import made_up_answers, write_between_markers
from numpy.typing import ArrayLike, NDArray

from speceyes_lib.analysis import fidelity
from speceyes_lib.gating.separability import PAPER_SCORES, flatten_answers, pooled_grid
from speceyes_lib.paths import stage_dir
from speceyes_lib.replay import outcomes, replay_data
from speceyes_lib.replay.cost_model import CallCost, CostModel
from speceyes_lib.replay.settings import Setting, grid
from speceyes_lib.runs.reading import read_manifest

SPLITS = {  # as published: samples per split, and how many of them share a question or picture
    "vstar/direct_attributes": (115, 1),
    "vstar/relative_position": (76, 1),
    "hr/hr_bench_4k": (800, 4),
    "hr/hr_bench_8k": (800, 4),
    "pope/adversarial": (3000, 6),
    "pope/popular": (3000, 6),
    "pope/random": (3000, 6),
}
THRESHOLDS = np.linspace(0.92, 0.99, 8)
KS = (32, 48, 64, 80, 96)
ROUTERS = ("large", "small")
GRID = grid(score=PAPER_SCORES, k=KS, router=ROUTERS, threshold=THRESHOLDS)  # 320 settings
MILLION = 1_000_000
CHUNK = 50_000


def made_up_cost(n: int, rng: np.random.Generator) -> CostModel:
    def calls(shape: tuple) -> CallCost:
        tokens = rng.integers(1, 30, shape).astype(float)
        return CallCost(rng.uniform(0.005, 0.02, shape), tokens, 0.01, 0.002, (1, 16), 100, 0.9)

    seconds = rng.uniform(0.001, 0.2, (4, n))
    routers = {router: calls((n,)) for router in ROUTERS}
    return CostModel(*seconds[:3], routers, calls((n,)), calls((n, 2)), seconds[3], serial_recorded=True)


def made_up(n: int, seed: int = 0, **evidence) -> replay_data.ReplayData:
    """n samples, split and grouped in the published proportions; verdicts by chance."""
    rng = np.random.default_rng(seed)
    whole = sum(size for size, _ in SPLITS.values())
    ends = np.cumsum([round(n * size / whole) for size, _ in SPLITS.values()])
    ends[-1] = n
    task = np.searchsorted(ends, np.arange(n), side="right")
    per_group = np.array([per for _, per in SPLITS.values()])
    draft, agent = (rng.random(n) < 0.8).astype(np.int8), (rng.random(n) < 0.9).astype(np.int8)
    return replay_data.ReplayData(
        ids=np.array([f"{i:07d}" for i in range(n)], dtype=object),
        tasks=np.array(list(SPLITS), dtype=object)[task],
        groups=task * n + np.arange(n) // per_group[task],
        readable=np.ones(n, bool),
        routed={router: (rng.random(n) < 0.25).astype(np.int8) for router in ROUTERS},
        draft=draft,
        agent=agent,
        cost=made_up_cost(n, rng),
        **evidence,
    )


def with_evidence(n: int, max_tokens: int = 20) -> replay_data.ReplayData:
    top, offsets = flatten_answers(made_up_answers(n, max_tokens))
    return made_up(n, top_logprobs=top, offsets=offsets)


def by_loop(data: replay_data.ReplayData, settings: pd.DataFrame) -> pd.DataFrame:
    """Accepted and right answers per setting and task, sample by sample."""
    draft, agent = data.draft_right.tolist(), data.agent_right.tolist()
    tasks = data.tasks.tolist()
    routed = {router: words.tolist() for router, words in data.routed.items()}
    rows = []
    for number, s in enumerate(settings.itertuples(index=False)):
        scores = data.score(s.score, s.k, s.slope).tolist()
        words, threshold = routed[s.router], s.threshold
        accepted, right, n = {}, {}, {}
        for i, task in enumerate(tasks):
            n[task] = n.get(task, 0) + 1
            if not words[i] and scores[i] > threshold:
                accepted[task] = accepted.get(task, 0) + 1
                right[task] = right.get(task, 0) + draft[i]
            else:
                right[task] = right.get(task, 0) + agent[i]
        rows += [(number, task, accepted.get(task, 0), 100 * right[task] / n[task]) for task in n]
    return pd.DataFrame(rows, columns=["setting", "task", "accepted", "accuracy_pct"])


def checked(replayed: pd.DataFrame, expected: pd.DataFrame) -> None:
    both = expected.merge(replayed, on=["setting", "task"], suffixes=("_loop", ""))
    if len(both) != len(expected) or not (
        (both["accepted"] == both["accepted_loop"]).all()
        and np.allclose(both["accuracy_pct"], both["accuracy_pct_loop"])
    ):
        raise SystemExit("replay and the loop disagree")


def fresh(data: replay_data.ReplayData) -> replay_data.ReplayData:
    """The same data without the scores it has computed."""
    return dataclasses.replace(data, pooled={})


def timed(work, repeats: int) -> tuple[float, object]:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return min(seconds), result


def peak_mib() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1024 if sys.platform != "darwin" else 1024**2)


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def sizes() -> str:
    rows = []
    for n in (420, 2_698, 10_791):
        data = with_evidence(n)
        for settings in (GRID[GRID["k"] == 64].reset_index(drop=True), GRID):
            scoring_s, _ = timed(lambda s=settings, p=data: scored(fresh(p), s), 3)
            all_s, replayed = timed(lambda s=settings, p=data: outcomes.replay(fresh(p), s), 3)
            sweep_s, _ = timed(lambda s=settings, p=data: outcomes.replay(p, s), 3)
            loop_s, expected = timed(lambda s=settings, p=data: by_loop(p, s), 1)
            checked(replayed, expected)
            cells = n * len(settings)
            rows.append(
                [
                    *(f"{n:,}", f"{len(settings)}", f"{len(data.top_logprobs):,}", f"{scoring_s:.3f}"),
                    *(f"{sweep_s:.3f}", f"{all_s:.2f}", f"{loop_s:.2f}", f"{loop_s / sweep_s:.0f}x"),
                    *(f"{1e9 * sweep_s / cells:.0f}", f"{1e9 * loop_s / cells:.0f}"),
                ]
            )
    header = [
        "samples",
        "settings",
        "tokens",
        "scores, s",
        "replay, scores known, s",
        "together, s",
        "loop, s",
    ]
    header += ["faster", "replay, ns per sample and setting", "loop, ns"]
    return table(header, rows)


def scored(data: replay_data.ReplayData, settings: pd.DataFrame) -> None:
    for score, k in settings[["score", "k"]].drop_duplicates().itertuples(index=False):
        data.score(score, k)


def dense(n: int = 10_791) -> str:
    data = with_evidence(n)
    seconds, replayed = timed(lambda: outcomes.curve(fresh(data), Setting()), 3)
    thresholds = replayed["threshold"].nunique()
    one_s, _ = timed(lambda: outcomes.replay(data, Setting()), 5)
    samples_s, _ = timed(lambda: outcomes.decisions(data, Setting()), 5)
    return (
        f"One score at every threshold that decides differently ({thresholds:,} of them, {n:,} samples, 7 splits): "
        f"{seconds:.2f} s. One threshold more: {1e3 * one_s:.0f} ms, sample by sample {1e3 * samples_s:.0f} ms."
    )


def chunks(n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Evidence of n answers, CHUNK at a time; never more than one chunk exists."""
    for start in range(0, n, CHUNK):
        yield flatten_answers(made_up_answers(min(CHUNK, n - start), 3, seed=start))


def pooled_in_chunks(
    chunks: Iterable[tuple[NDArray, ArrayLike]], ks: Sequence[int]
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """`ReplayData.pooled` of a run whose evidence is too large for the memory, from chunks of it."""
    parts: dict[tuple[str, int], list[NDArray]] = {}
    for top, offsets in chunks:
        for k in ks:
            for mode, values in pooled_grid(top, offsets, (k,), replay_data.SEPARABLE).items():
                parts.setdefault((mode, k), []).append(values[:, 0])
        parts.setdefault(("log", 0), []).append(pooled_grid(top, offsets, (2,), ("log",))["log"][:, 0])
    return {key: np.concatenate(values) for key, values in parts.items()}


def million() -> str:
    """Runs in this process alone, so that its peak memory is not that of others."""
    making = 0.0

    def counted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal making
        source = chunks(MILLION)
        while True:
            start = time.perf_counter()
            chunk = next(source, None)
            making += time.perf_counter() - start
            if chunk is None:
                return
            yield chunk

    start = time.perf_counter()
    pooled = pooled_in_chunks(counted(), KS)
    scoring_s = time.perf_counter() - start - making
    data = made_up(MILLION, pooled=pooled)
    sweep_s, replayed = timed(lambda: outcomes.replay(data, GRID), 1)
    if not (replayed["status"] == "ok").all():
        raise SystemExit("a setting was refused")
    return (
        f"{MILLION:,} records of 1 to 3 tokens, {len(GRID)} settings: scores from evidence that comes {CHUNK:,} "
        f"answers at a time {scoring_s:.1f} s, replay {sweep_s:.1f} s; peak memory of the process "
        f"{peak_mib():,.0f} MiB."
    )


def report() -> str:
    setting = (
        f"{platform.machine()}, {os.cpu_count()} cores, one thread, numpy {np.__version__}, pandas {pd.__version__}, "
        f"Python {platform.python_version()}; wall-clock, best of 3 (loop: once)."
    )
    parts = [setting, sizes()]
    parts.append(f"Peak memory of the process up to here: {peak_mib():,.0f} MiB.")
    return "\n\n".join([*parts, dense(), million()])


def fidelity_table(run: str) -> str:
    """The table that the study of replay fidelity wrote."""
    manifest = read_manifest(run, fidelity.STAGE)
    replayed = pd.read_csv(
        stage_dir(run, fidelity.STAGE) / "settings.csv", keep_default_na=False, na_values=["nan"]
    )
    machine = manifest.environment
    rows = [
        [
            *(
                row.setting,
                f"{row.n:,}",
                f"{row.decisions_differ}",
                f"{row.answers_differ}",
                f"{row.verdicts_differ}",
            ),
            *(
                f"{row.accuracy_pct_predicted:.2f} / {row.accuracy_pct_measured:.2f}",
                f"{row.accepted_measured}",
            ),
            *(f"{row.wall_s_predicted:.1f} / {row.wall_s_measured:.1f}",),
            *(f"{row.speedup_predicted:.2f}x / {row.speedup_measured:.2f}x", f"{row.off_pct:+.1f} %"),
            row.cost_note or "",
        ]
        for row in replayed.itertuples()
    ]
    header = [
        "setting",
        "n",
        "decisions differ",
        "answers differ",
        "verdicts differ",
        "accuracy %",
        "accepted",
    ]
    header += ["wall-clock s", "speedup", "off", "note"]
    setting = f"{machine['platform']}, {machine['cores']} cores, {machine['omp_threads']} thread(s)."
    lead = f"Replayed / measured, embedded models and benchmark; {setting}"
    return "\n\n".join([lead, table(header, rows), " ".join(fidelity.finding(replayed))])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fidelity", metavar="RUN", help="show what notebook 06 measured in this run")
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    arguments = parser.parse_args()
    name = "bench_fidelity" if arguments.fidelity else "bench_replay"
    measured = fidelity_table(arguments.fidelity) if arguments.fidelity else report()
    print(measured)
    if arguments.write:
        write_between_markers(Path(__file__).with_name("README.md"), name, measured)
