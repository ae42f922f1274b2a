"""What it costs to record the layers inside the draft model, in time and in memory.

    python benchmarks/bench_layers.py [--write] [--large]

Drafting as stage 01 does it (pictures resized and encoded, prompt, decoding, evidence, scores, and the bytes that are
stored) with no layer recorded, the same again, which shows the noise, with two layers, and with all intermediate ones.
The ways take turns. Answers and all other evidence must be identical, or the script fails.

`--large` adds decoding with the width and the vocabulary of Qwen3-VL-2B (random weights, 4 of its 28 layers; about 3 GB
of memory and some minutes). The cost of a recorded layer and of a layer of the model follow from it, and with them the
share that recording would take in all 28 layers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import transformers
from bench_confidence import write_between_markers

from speceyes_lib.demo.benchmark import generate
from speceyes_lib.inference.stages import load_samples, preview_drafts
from speceyes_lib.models.decoding import EvidenceRecorder, LayerRecorder, decode_batch
from speceyes_lib.params import DraftParams
from speceyes_lib.runs.evidence import pack

ROUNDS = 9
SAMPLES = 16
K, LAYER_K = 128, 16
LARGE = {"batch": 4, "prompt": 128, "tokens": 8, "layers": 4, "of": 28}


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
    base_s, base_bytes = statistics.median(seconds["none"]), results["none, bytes"]
    lines = ["| recorded | drafting, CPU ms a sample | more | bytes stored a token |", "| --- " * 4 + "|"]
    for name in ways:
        median_s = statistics.median(seconds[name])
        lines.append(
            f"| {name} | {1e3 * median_s / len(samples):.2f} | {median_s / base_s - 1:+.1%} "
            f"| {results[f'{name}, bytes'] / tokens:,.0f} ({(results[f'{name}, bytes'] - base_bytes) / tokens:+,.0f}) |"
        )
    return "\n".join(lines)


def wide_model(depth: int) -> transformers.PreTrainedModel:
    """The first layers of a language model with the dimensions of Qwen3-VL-2B and random weights."""
    text = {
        "vocab_size": 151_936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": depth,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 64, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 2048}
    vision["deepstack_visual_indexes"] = []
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)
    torch.manual_seed(0)
    with transformers.initialization.no_init_weights():
        model = transformers.Qwen3VLForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        parameter.data.uniform_(-0.02, 0.02)
    return model


def large() -> str:
    """Seconds of decoding with 2 and 4 layers, and of recording 3; what follows for 28 layers."""
    model = wide_model(LARGE["layers"])
    every = model.model.language_model.layers
    batch, prompt = LARGE["batch"], LARGE["prompt"]
    ids = torch.randint(1000, 100_000, (batch, prompt))
    places = torch.arange(prompt).expand(4, batch, -1)

    def decode(depth: int, recorded: int) -> float:
        model.model.language_model.layers = every[:depth]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "position_ids": places}
        inputs["past_key_values"] = transformers.DynamicCache(config=model.config)
        start = time.process_time()
        with torch.inference_mode():
            if recorded:
                with LayerRecorder(model, recorded, LAYER_K) as layers:
                    recorder = EvidenceRecorder(K, layers)
                    decode_batch(model, inputs, LARGE["tokens"], set(), recorder=recorder)
                    layers.evidence()
            else:
                decode_batch(model, inputs, LARGE["tokens"], set(), recorder=EvidenceRecorder(K))
        return time.process_time() - start

    ways = {"2 layers": (2, 0), "4 layers": (4, 0), "4 layers, 3 recorded": (4, 3)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(4):
        for name, way in ways.items():
            spent_s = decode(*way)
            if turn:
                seconds[name].append(spent_s)
    half_s, whole_s, recorded_s = (statistics.median(seconds[name]) for name in ways)
    layer_s, record_s = (whole_s - half_s) / 2, (recorded_s - whole_s) / 3
    deep_s = whole_s + (LARGE["of"] - LARGE["layers"]) * layer_s
    return (
        f"Width 2,048, vocabulary 151,936, {batch} prompts of {prompt} positions, {LARGE['tokens']} tokens each: "
        f"{whole_s:.1f} s with 4 layers, of which a layer takes {layer_s:.2f} s; a recorded layer adds "
        f"{record_s:.2f} s. With 28 layers, recording one would add {record_s / deep_s:.1%} and recording four "
        f"{4 * record_s / deep_s:.1%}; a vision tower and a longer prompt lower that share."
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    parser.add_argument("--large", action="store_true", help="add the dimensions of Qwen3-VL-2B")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    setting = (
        f"{SAMPLES} drafts in one batch, K = {K}, {LAYER_K} alternatives per token and layer, float32, one thread; "
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__.split('+')[0]}, transformers "
        f"{transformers.__version__}; CPU time, median of {ROUNDS} rounds that take turns; answers and all other "
        "evidence identical."
    )
    tables = {"bench_layers": lambda: f"{setting}\n\n{embedded()}"}
    if arguments.large:
        tables["bench_layers_large"] = large
    for name, measure in tables.items():
        measured = measure()
        print(measured, flush=True)
        if arguments.write:
            write_between_markers(Path(__file__).with_name("README.md"), name, measured)
