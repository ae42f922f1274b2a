"""Scoring a whole run for every K and mode: `score_grid` against a loop over answers, K and modes.

    python benchmarks/bench_confidence.py [--write]

The loop is the formula as one would first write it: per answer, K and mode, slice the top K, take mean and
deviation, pool, squash. Both get the same arrays and must agree to 1e-9, or the script fails. `--write` puts
the table into README.md beside this file, between the markers of this script.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from speceyes_lib.gating.separability import (
    DEFAULT_SLOPE,
    EPS,
    PAPER_SCORES,
    flatten_answers,
    score_answer,
    score_grid,
)

KS = (32, 48, 64, 80, 96)  # the paper's K ablation
K_STORED = 128
VOCABULARY = 20_000
# name: (answers, the most tokens an answer has)
WORKLOADS = {
    "embedded run": (420, 3),
    "V*, HR-Bench and POPE in full": (191 + 1_600 + 9_000, 20),
}


def made_up_answers(n_answers: int, max_tokens: int, seed: int = 0) -> list[np.ndarray]:
    """Float32 log-probabilities [tokens, K_STORED]: normal logits with a winner of random height."""
    rng = np.random.default_rng(seed)
    logits = np.sort(rng.normal(0, 2, (256, VOCABULARY)), axis=1)[:, ::-1]
    pool = logits[:, :K_STORED]
    log_rest = np.log(np.exp(logits[:, 1:]).sum(axis=1))
    answers = []
    for n_tokens in rng.integers(1, max_tokens + 1, n_answers):
        row = rng.integers(0, len(pool), n_tokens)
        top = pool[row].copy()
        top[:, 0] += rng.gamma(1.5, 4.0, n_tokens)
        answers.append((top - np.logaddexp(top[:, :1], log_rest[row, None])).astype(np.float32))
    return answers


def by_loop(answers: list[np.ndarray]) -> dict[str, np.ndarray]:
    scores = {mode: np.empty((len(answers), len(KS))) for mode in PAPER_SCORES}
    for i, answer in enumerate(answers):
        for j, k in enumerate(KS):
            for mode in PAPER_SCORES:
                if mode == "log":
                    scores[mode][i, j] = np.exp(answer[:, 0].astype(np.float64).mean())
                    continue
                top = answer[:, :k].astype(np.float64)
                s = (top[:, 0] - top[:, 1:].mean(axis=1)) / (top[:, 1:].std(axis=1) + EPS)
                if mode == "bottom20":
                    s = np.sort(s)[: max(1, int(0.2 * len(s)))]
                pooled = s.min() if mode == "min" else s.mean()
                scores[mode][i, j] = 1 / (1 + np.exp(-DEFAULT_SLOPE * pooled))
    return scores


def one_by_one(answers: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {
        mode: np.array([[score_answer(answer, mode, k) for k in KS] for answer in answers])
        for mode in PAPER_SCORES
    }


def by_grid(answers: list[np.ndarray]) -> dict[str, np.ndarray]:
    return score_grid(*flatten_answers(answers), KS)


def best_of(repeats: int, score: Callable, answers: list[np.ndarray]) -> tuple[float, dict]:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = score(answers)
        seconds.append(time.process_time() - start)
    return min(seconds), result


def table() -> str:
    setting = (
        f"{len(KS)} K x {len(PAPER_SCORES)} modes, {K_STORED} stored log-probabilities per token; "
        f"{platform.machine()}, {os.cpu_count()} cores, one thread, numpy {np.__version__}, "
        f"Python {platform.python_version()}; CPU time, best of 5"
        " (loops: of 3)."
    )
    columns = (
        "workload",
        "answers",
        "tokens",
        "loop, CPU ms",
        "`score_answer` each, CPU ms",
        "`score_grid`, CPU ms",
        "faster than the loop",
        "largest difference",
    )
    lines = [setting, "", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for name, (n_answers, max_tokens) in WORKLOADS.items():
        answers = made_up_answers(n_answers, max_tokens)
        loop_s, expected = best_of(3, by_loop, answers)
        single_s, _ = best_of(3, one_by_one, answers)
        grid_s, result = best_of(5, by_grid, answers)
        difference = max(float(np.abs(result[mode] - expected[mode]).max()) for mode in PAPER_SCORES)
        if not difference < 1e-9:
            raise SystemExit(f"{name}: score_grid and the loop differ by {difference:.2g}")
        lines.append(
            f"| {name} | {n_answers:,} | {sum(map(len, answers)):,} | {1e3 * loop_s:,.0f} | "
            f"{1e3 * single_s:,.0f} | {1e3 * grid_s:,.1f} | {loop_s / grid_s:.0f}x | {difference:.0e} |"
        )
    return "\n".join(lines)


def write_between_markers(file: Path, name: str, text: str) -> None:
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = file.read_text(encoding="utf-8").split(begin)
    after = rest.split(end)[1]
    file.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    arguments = parser.parse_args()
    measured = table()
    print(measured)
    if arguments.write:
        write_between_markers(Path(__file__).with_name("README.md"), "bench_confidence", measured)
