"""Evidence on the fly against no evidence and against keeping every logit: time of generation and memory.

    python benchmarks/bench_evidence.py [--write] [--embedded-only]

Three ways to generate the same tokens from the same inputs, and the first of them twice, which shows the noise:

    none        greedy generation, nothing kept
    on the fly  `EvidenceRecorder`: per step the K highest log-probabilities, moved to the host once at the end
    afterwards  `output_logits=True`: the whole vocabulary of every step kept, the same K taken at the end

The last two must agree to 1e-5 or the script fails. The large model has the dimensions and the vocabulary
(151,936) of Qwen3-VL-2B, random weights and a text-only prompt: speed does not depend on what is said. It needs
9 GB of memory and a few minutes. `--write` puts the table into README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from bench_confidence import write_between_markers

from speceyes_lib import prompts
from speceyes_lib.backends.base import GenerationRequest
from speceyes_lib.backends.transformers import EvidenceRecorder, TransformersBackend
from speceyes_lib.benchmarks import load_task
from speceyes_lib.demo.benchmark import generate
from speceyes_lib.images import resized_view
from speceyes_lib.paths import repo_root

K = 128
BATCH = 8
NEW_TOKENS = 20  # the paper's limit for drafts
Ways = dict[str, Callable[[], tuple]]


def ways(model, inputs: dict) -> Ways:
    """The three ways as functions that return (new tokens [batch, steps], top-K or None, bytes kept meanwhile)."""
    start = inputs["input_ids"].shape[1]

    def none():
        return model.generate(**inputs, max_new_tokens=NEW_TOKENS)[:, start:], None, 0

    def on_the_fly():
        recorder = EvidenceRecorder(K)
        tokens = model.generate(**inputs, max_new_tokens=NEW_TOKENS, logits_processor=[recorder])[:, start:]
        ids, top = recorder.arrays()
        return tokens, top, ids.nbytes + top.nbytes

    def afterwards():
        done = model.generate(
            **inputs, max_new_tokens=NEW_TOKENS, output_logits=True, return_dict_in_generate=True
        )
        kept = sum(t.nbytes for t in done.logits)
        top = torch.stack(done.logits).log_softmax(-1).topk(K)
        return done.sequences[:, start:], top.values.numpy(), kept

    return {"none": none, "none again": none, "on the fly": on_the_fly, "afterwards": afterwards}


def embedded_draft(goes_on: bool = False) -> Ways:
    """The embedded draft model on a batch of the embedded benchmark's questions; `goes_on`: past its answers' end."""
    backend = TransformersBackend(repo_root() / "data/demo/models/draft", dtype="float32", device="cpu")
    wording = prompts.load("demo")
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
    if goes_on:
        backend.model.generation_config.eos_token_id = None
    return ways(backend.model, backend._tensors([backend._row(r) for r in requests]))


def model_of_2b() -> Ways:
    """The language model of Qwen3-VL-2B in size, random weights, behind a token's worth of vision tower."""
    text = {
        "vocab_size": 151_936,
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
    model.generation_config = transformers.GenerationConfig(do_sample=False, pad_token_id=0)
    inputs = {"input_ids": torch.randint(1000, 100_000, (BATCH, 16))}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return ways(model, inputs)


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
    if not all(torch.equal(r[0], tokens) for r in results.values()):
        raise SystemExit("the three ways generated different tokens")
    np.testing.assert_allclose(top, results["afterwards"][1], atol=1e-5)
    return {n: (statistics.median(seconds[n]), results[n][0].shape[1], results[n][2]) for n in workload}


def table(embedded_only: bool) -> str:
    workloads = [
        ("embedded draft, its own answers", 491, embedded_draft, 100),
        ("embedded draft, going on past its answers", 491, lambda: embedded_draft(goes_on=True), 100),
    ]
    if not embedded_only:
        workloads.append(("2B-sized, random weights", 151_936, model_of_2b, 3))
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
    for name, vocabulary, build, repeats in workloads:
        found = measure(build(), repeats)
        none_s, steps, _ = found["none"]
        (fly_s, _, fly_bytes), (after_s, _, after_bytes) = found["on the fly"], found["afterwards"]
        again_s = found["none again"][0]
        changes = " | ".join(f"{x / none_s - 1:+.1%}" for x in (fly_s, after_s, again_s))
        lines.append(
            f"| {name} | {vocabulary:,} | {steps} | {1e3 * none_s:,.1f} | {changes} "
            f"| {fly_bytes / 2**20:,.2f} MiB | {after_bytes / 2**20:,.2f} MiB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--embedded-only", action="store_true", help="leave the large model out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = table(arguments.embedded_only)
    print(measured)
    if arguments.write:
        write_between_markers(Path(__file__).with_name("README.md"), "bench_evidence", measured)
