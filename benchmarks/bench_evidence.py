"""Evidence on the fly against no evidence and against keeping every logit: time and memory.

    python benchmarks/bench_evidence.py [--write] [--embedded-only]

Generation: the same tokens from the same inputs three ways, and the first of them twice, which shows the noise:

    none        greedy decoding, nothing kept
    on the fly  `EvidenceRecorder`: per step the K highest log-probabilities, moved to the host once at the end
    afterwards  the whole logits of every step kept, the same K taken at the end

The last two must agree to 1e-5 or the script fails. The large model has the dimensions and the vocabulary
(151,936) of Qwen3-VL-2B, random weights and a text-only prompt: speed does not depend on the tokens.

Evidence alone: a stream of logits of that vocabulary, up to 1,024 tokens for a batch of 8, from the logits to the four
scores, each way in its own process, whose peak memory is read. On the fly, and the plain way: keep the
logits of every step, then go through them token by token. Scores must agree to 1e-6. The two need 9 and 6 GB of memory
and some minutes. `--write` puts the tables into README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import transformers
from bench_confidence import write_between_markers

from speceyes_lib.agents import prompt_sets
from speceyes_lib.demo.benchmark import generate
from speceyes_lib.gating.separability import (
    DEFAULT_K,
    DEFAULT_SLOPE,
    EPS,
    PAPER_SCORES,
    flatten_answers,
    score_grid,
)
from speceyes_lib.models.base import GenerationRequest
from speceyes_lib.models.decoding import EvidenceRecorder, decode_batch
from speceyes_lib.models.transformers import TransformersBackend
from speceyes_lib.paths import repo_root
from speceyes_lib.tasks.images import resized_view
from speceyes_lib.tasks.registry import load_task

K = 128
BATCH = 8
NEW_TOKENS = 20  # the paper's limit for drafts
VOCABULARY = 151_936
Ways = dict[str, Callable[[], tuple]]


class Keeper:
    """Keeps the logits of every step as they are."""

    def __init__(self) -> None:
        self.logits: list[torch.Tensor] = []

    def record(self, logits: torch.Tensor) -> None:
        self.logits.append(logits)


def ways(model, inputs: dict, ends: set[int]) -> Ways:
    """The three ways as functions that return (new tokens [batch, steps], top-K or None, bytes kept meanwhile)."""

    def decode(recorder=None) -> list[list[int]]:
        fresh = inputs | {"past_key_values": transformers.DynamicCache(config=model.config)}
        return [tokens for tokens, _ in decode_batch(model, fresh, NEW_TOKENS, ends, recorder=recorder)]

    def none():
        return decode(), None, 0

    def on_the_fly():
        recorder = EvidenceRecorder(K)
        tokens = decode(recorder)
        ids, top = recorder.arrays()
        return tokens, top, ids.nbytes + top.nbytes

    def afterwards():
        keeper = Keeper()
        tokens = decode(keeper)
        kept = sum(t.nbytes for t in keeper.logits)
        top = torch.stack(keeper.logits).log_softmax(-1).topk(K)
        return tokens, top.values.numpy(), kept

    return {"none": none, "none again": none, "on the fly": on_the_fly, "afterwards": afterwards}


def embedded_draft(goes_on: bool = False) -> tuple[Ways, int]:
    """The embedded draft model on a batch of the embedded benchmark's questions; `goes_on`: past its answers' end."""
    backend = TransformersBackend(repo_root() / "data/demo/models/draft", dtype="float32", device="cpu")
    wording = prompt_sets.load("demo")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "benchmark"
        generate(root, seed=1, sizes={"vstar": BATCH, "hr": 1, "pope": 1})
        requests = [
            GenerationRequest(
                s.id,
                wording.draft_messages(
                    wording.question_block(s.question, s.options),
                    resized_view(s.image.open(), backend.image_spec),
                ),
                NEW_TOKENS,
            )
            for s in load_task("vstar/direct_attributes", root)
        ]
    inputs = backend.batch_tensors([backend.prepared_row(r) for r in requests])
    return ways(backend.model, inputs, set() if goes_on else backend.end_ids), backend.vocab_size


def model_of_2b() -> tuple[Ways, int]:
    """The language model of Qwen3-VL-2B in size, random weights, behind a token's worth of vision tower."""
    text = {
        "vocab_size": VOCABULARY,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
    }
    vision = {"depth": 1, "hidden_size": 64, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 2048}
    vision["deepstack_visual_indexes"] = []
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    torch.manual_seed(0)
    with transformers.initialization.no_init_weights():
        model = transformers.Qwen3VLForConditionalGeneration(config).eval()
    for parameter in model.parameters():  # any numbers of a sane size will do, and quickly
        parameter.data.uniform_(-0.02, 0.02)
    ids = torch.randint(1000, 100_000, (BATCH, 16))
    places = torch.arange(16).expand(4, BATCH, -1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": places}
    return ways(model, inputs, set()), VOCABULARY


def measure(workload: Ways, repeats: int) -> dict[str, tuple[float, int, int]]:
    """Per way: median CPU seconds of generation, steps, bytes kept. The ways take turns, in random order."""
    rng = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in workload}
    results = {}
    with torch.inference_mode():
        for turn in range(repeats + 1):
            for name in rng.sample(list(workload), len(workload)):
                start = time.process_time()
                results[name] = workload[name]()
                if turn:  # the first is the warm-up
                    seconds[name].append(time.process_time() - start)
    tokens, top, _ = results["on the fly"]
    if not all(r[0] == tokens for r in results.values()):
        raise SystemExit("the three ways generated different tokens")
    np.testing.assert_allclose(top, results["afterwards"][1], atol=1e-5)
    return {n: (statistics.median(seconds[n]), len(top), results[n][2]) for n in workload}


def table(embedded_only: bool) -> str:
    workloads = [
        ("embedded draft, its answers", embedded_draft, 100),
        ("embedded draft, going on past its answers", lambda: embedded_draft(goes_on=True), 100),
    ]
    if not embedded_only:
        workloads.append(("2B-sized, random weights", model_of_2b, 3))
    setting = (
        f"Batch {BATCH}, K = {K}, float32, one thread; {platform.machine()}, {os.cpu_count()} cores, torch "
        f"{torch.__version__.split('+')[0]}, transformers {transformers.__version__}; CPU time of generation, median."
    )
    columns = (
        "model",
        "vocabulary",
        "steps",
        "generation, ms",
        "on the fly",
        "afterwards",
        "none again",
        "kept on the fly",
        "kept for afterwards",
    )
    lines = [setting, "", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for name, build, repeats in workloads:
        workload, vocabulary = build()
        measured = measure(workload, repeats)
        none_s, steps, _ = measured["none"]
        (fly_s, _, fly_bytes), (after_s, _, after_bytes) = measured["on the fly"], measured["afterwards"]
        again_s = measured["none again"][0]
        changes = " | ".join(f"{x / none_s - 1:+.1%}" for x in (fly_s, after_s, again_s))
        lines.append(
            f"| {name} | {vocabulary:,} | {steps} | {1e3 * none_s:,.1f} | {changes} "
            f"| {fly_bytes / 2**20:,.2f} MiB | {after_bytes / 2**20:,.2f} MiB |"
        )
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------- evidence alone
LENGTHS = (20, 1024)


def logits_of(step: int, base: torch.Tensor) -> torch.Tensor:
    """[batch, vocabulary], another one for each step, as fresh as a model's."""
    return base.roll(step * 7919, -1)


def on_the_fly_alone(base: torch.Tensor, steps: int) -> tuple[dict[str, np.ndarray], float]:
    """(scores of the batch's answers, seconds that keeping the evidence and scoring it took)."""
    recorder, spent_s = EvidenceRecorder(K), 0.0
    for step in range(steps):
        logits = logits_of(step, base)
        start = time.process_time()
        recorder.record(logits)
        spent_s += time.process_time() - start
        del logits
    start = time.process_time()
    _, top = recorder.arrays()
    scores = score_grid(*flatten_answers(top.transpose(1, 0, 2)))
    return {m: s[:, 0] for m, s in scores.items()}, spent_s + time.process_time() - start


def plainly_alone(base: torch.Tensor, steps: int) -> tuple[dict[str, np.ndarray], float]:
    """The same by keeping all logits and looping over tokens: the formulas of the paper, one after the other."""
    kept = [logits_of(step, base) for step in range(steps)]
    start = time.process_time()
    scores: dict[str, list[float]] = {mode: [] for mode in PAPER_SCORES}
    for answer in range(len(base)):
        separability, logprob = [], []
        for logits in kept:
            top = logits[answer].double().topk(DEFAULT_K).values
            others = top[1:]
            separability.append(float((top[0] - others.mean()) / (others.std(correction=0) + EPS)))
            logprob.append(float(logits[answer].log_softmax(-1).max()))
        lowest = sorted(separability)[: max(1, steps // 5)]
        pooled = {"min": min(separability), "mean": np.mean(separability), "bottom20": np.mean(lowest)}
        for mode in PAPER_SCORES:
            value = (
                np.exp(np.mean(logprob)) if mode == "log" else 1 / (1 + np.exp(-DEFAULT_SLOPE * pooled[mode]))
            )
            scores[mode].append(float(value))
    return {m: np.array(s) for m, s in scores.items()}, time.process_time() - start


def alone(way: str, steps: int) -> tuple[dict[str, np.ndarray], float, int]:
    """One way in this process: (scores, seconds, peak memory above what stood before, bytes)."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    base = torch.randn(BATCH, VOCABULARY) * 3
    run = on_the_fly_alone if way == "on the fly" else plainly_alone
    run(base, 1)  # what is loaded once is no part of it
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scores, spent_s = run(base, steps)
    return scores, spent_s, 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def table_alone() -> str:
    columns = (
        "tokens",
        "way",
        "evidence and scores, s",
        "ms per token of 8 answers",
        "peak extra memory",
        "less",
    )
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for steps in LENGTHS:
        measured = {}
        for way in ("plainly", "on the fly"):
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                measured[way] = pool.submit(alone, way, steps).result()
        for mode in PAPER_SCORES:
            np.testing.assert_allclose(
                measured["on the fly"][0][mode], measured["plainly"][0][mode], atol=1e-6
            )
        most = measured["plainly"][2]
        lines += [
            f"| {steps:,} | {way} | {spent_s:.2f} | {1e3 * spent_s / steps:.1f} | {extra / 2**20:,.1f} MiB "
            f"| {most / max(extra, 1):,.0f}x |"
            for way, (_, spent_s, extra) in measured.items()
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--embedded-only", action="store_true", help="leave the large model out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tables = {"bench_evidence": lambda: table(arguments.embedded_only)}
    if not arguments.embedded_only:
        tables = {"bench_evidence_alone": table_alone} | tables
    for name, measure_it in tables.items():
        measured = measure_it()
        print(measured, flush=True)
        if arguments.write:
            write_between_markers(Path(__file__).with_name("README.md"), name, measured)
