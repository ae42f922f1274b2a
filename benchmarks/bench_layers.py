"""What it costs to record the layers inside the draft model, in time and in memory.

    python benchmarks/bench_layers.py [--write]

Drafting as stage 01 does it (pictures resized and encoded, prompt, decoding, evidence, scores, and the bytes that are
stored) with no layer recorded, the same again, which shows the noise, with two layers, and with all intermediate ones.
The ways take turns. Answers and all other evidence must be identical, or the script fails.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from bench_confidence import write_between_markers

from speceyes_lib.demo.benchmark import generate
from speceyes_lib.inference.stages import load_samples, preview_drafts
from speceyes_lib.models.transformers import LAYER_K
from speceyes_lib.params import DraftParams
from speceyes_lib.runs.evidence import pack

ROUNDS = 12
SAMPLES = 16


def embedded() -> str:
    """A table row per way."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "benchmark"
        generate(root, seed=1, sizes={"vstar": SAMPLES, "hr": 1, "pope": 1})
        params = DraftParams(data_root=str(root), tasks=["vstar/direct_attributes"], device="cpu")
        samples = load_samples(params, params.tasks[0])
        ways = {"none": 0, "none again": 0, "2 layers": 2, "all 3 layers": 3}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        results = {}
        for turn in range(ROUNDS + 1):
            for name in list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]:
                way = params.model_copy(update={"layers": ways[name]})
                start = time.process_time()
                results[name] = preview_drafts(way, samples)
                stored = [json.dumps(pack(record.id, e)) for record, e in results[name]]
                if turn:  # the first is the warm-up
                    seconds[name].append(time.process_time() - start)
                results[f"{name}, bytes"] = sum(map(len, stored))
    plain = results["none"]
    for name in ways:
        for (a, e), (b, f) in zip(plain, results[name], strict=True):
            if a.answer != b.answer or not e.equals(replace(f, layers=None)):
                raise SystemExit(f"{name}: recording layers changed an answer or its evidence")
    tokens = sum(e.n_tokens for _, e in plain)
    base_s, base_bytes = min(seconds["none"]), results["none, bytes"]
    lines = ["| recorded | drafting, CPU ms a sample | more | bytes stored a token |", "| --- " * 4 + "|"]
    for name in ways:
        shortest_s = min(seconds[name])
        lines.append(
            f"| {name} | {1e3 * shortest_s / len(samples):.2f} | {shortest_s / base_s - 1:+.1%} "
            f"| {results[f'{name}, bytes'] / tokens:,.0f} ({(results[f'{name}, bytes'] - base_bytes) / tokens:+,.0f}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    setting = (
        f"{SAMPLES} drafts in one batch, K = {DraftParams().k_store}, {LAYER_K} alternatives per token and layer, "
        "float32, one thread; "
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__.split('+')[0]}, transformers "
        f"{transformers.__version__}; CPU time, shortest of {ROUNDS} rounds that take turns; answers and all other "
        "evidence identical."
    )
    measured = f"{setting}\n\n{embedded()}"
    print(measured)
    if arguments.write:
        write_between_markers(Path(__file__).with_name("README.md"), "bench_layers", measured)
