"""The funnel against a serial reference loop, on the embedded models and benchmark: same answers, less time.

    python benchmarks/bench_funnel.py [--write] [--samples 20] [--pairs 5]

The reference is written for the purpose and does what the original is described to do: it routes and drafts a batch,
then runs the agents one sample at a time, and encodes the whole conversation again, pictures included, on every turn.
The funnel advances 16 agents at a time and computes on a turn only what is new. Both ask the same backends and
take turns; answers and decisions must be identical or the script fails. Between them stand the plain arms of the
suite, which run agents one at a time as the paper does. `--write` puts the table into README.md beside this file.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
import transformers
from bench_confidence import write_between_markers

from speceyes_lib.agents import prompt_sets
from speceyes_lib.agents.deepeyes import DeepEyesAgent
from speceyes_lib.demo.benchmark import generate
from speceyes_lib.gating.separability import score_answer
from speceyes_lib.inference.funnel import Gate, Router, run_funnel
from speceyes_lib.models.base import GenerationRequest
from speceyes_lib.models.transformers import TransformersBackend
from speceyes_lib.params import PrepareParams
from speceyes_lib.paths import repo_root
from speceyes_lib.tasks.images import resized_view
from speceyes_lib.tasks.registry import TASKS, load_task
from speceyes_lib.tasks.sample import Sample

BATCH = 16
THRESHOLD = 0.97
EMBEDDED_SEED = PrepareParams().seed
Outcome = dict[str, tuple]  # sample -> (decision, answer, texts of the agent's turns)


class Machine:
    """The embedded pair, its wording, and the samples."""

    def __init__(self, root: Path, samples_per_task: int) -> None:
        generate(root, seed=EMBEDDED_SEED)
        self.tasks = [load_task(task, root)[:samples_per_task] for task in TASKS]
        self.n = sum(map(len, self.tasks))
        models = repo_root() / "data/demo/models"
        self.draft, self.agent = (
            TransformersBackend(models / role, role=role, dtype="float32", device="cpu")
            for role in ("draft", "agent")
        )
        self.wording = prompt_sets.load("demo")
        self.make_agent = partial(DeepEyesAgent, spec=self.agent.image_spec, prompts=self.wording)
        for backend in (self.draft, self.agent):
            backend.warm_up()

    def block(self, sample: Sample) -> str:
        return self.wording.question_block(sample.question, sample.options)


def reference(machine: Machine, gated: bool) -> Outcome:
    """One sample at a time, everything encoded again on every turn; router and draft in batches."""
    outcome: Outcome = {}
    for task in machine.tasks:
        for start in range(0, len(task), BATCH):
            batch = task[start : start + BATCH]
            for sample, accepted in accepted_drafts(machine, batch).items() if gated else ():
                outcome[sample] = ("accepted", accepted, ())
            for sample in batch:
                if sample.id not in outcome:
                    outcome[sample.id] = fall_back(machine, sample)
    return outcome


def accepted_drafts(machine: Machine, batch: Sequence[Sample]) -> dict[str, str]:
    """Phases I to III for a batch: sample -> draft, where it is accepted."""
    views = {s.id: resized_view(s.image.open(), machine.agent.image_spec) for s in batch}
    requests = [
        GenerationRequest(s.id, machine.wording.router_messages(machine.block(s), views[s.id], "large"), 10)
        for s in batch
    ]
    words = machine.agent.generate(requests)
    easy = [
        s
        for s, generation in zip(batch, words, strict=True)
        if generation.text.strip().lower().startswith("no")
    ]
    requests = [
        GenerationRequest(
            s.id, machine.wording.draft_messages(machine.block(s), views[s.id]), 20, evidence_k=128
        )
        for s in easy
    ]
    drafts = machine.draft.generate(requests) if requests else []
    return {d.id: d.text.strip() for d in drafts if score_answer(d.evidence.top_logprobs) > THRESHOLD}


def fall_back(machine: Machine, sample: Sample) -> tuple:
    """Phase IV for one sample: the agent turn by turn, everything encoded again (requests reuse nothing by default)."""
    original = sample.image.open()
    view = resized_view(original, machine.agent.image_spec)
    agent = machine.make_agent(sample.id, machine.block(sample), original, view)
    while not agent.done:
        (generation,) = machine.agent.generate([agent.next_request()])
        agent.feed(generation)
    path = agent.trajectory()
    return "large", path.answer, tuple(turn.text for turn in path.turns)


def funnel(machine: Machine, gated: bool, agents: int) -> Outcome:
    """The suite's funnel with this many agents at a time."""
    outcome: Outcome = {}
    for task in machine.tasks:
        results = run_funnel(
            task,
            mode="gated" if gated else "baseline",
            agent_backend=machine.agent,
            draft_backend=machine.draft if gated else None,
            make_agent=machine.make_agent,
            prompts=machine.wording,
            router=Router() if gated else None,
            gate=Gate(THRESHOLD) if gated else None,
            batch_size=BATCH,
            agent_batch_size=agents,
            reuse=agents > 1,
        )
        for r, _ in results:
            turns = tuple(turn.text for turn in r.trajectory.turns) if r.trajectory else ()
            outcome[r.id] = ("accepted" if r.decision == "accepted" else "large", r.answer, turns)
    return outcome


def measure(machine: Machine, pairs: int) -> dict[tuple[str, str], tuple[float, float, float]]:
    """(run, way) -> median CPU seconds, median ratio to the reference of the same round, accepted share."""
    results = {}
    for run, gated in (("baseline", False), ("gated", True)):
        ways: dict[str, Callable[[], Outcome]] = {
            "serial reference": lambda gated=gated: reference(machine, gated),
            "suite, one agent at a time": lambda gated=gated: funnel(machine, gated, 1),
            f"suite, {BATCH} agents at a time": lambda gated=gated: funnel(machine, gated, BATCH),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        outcomes = {}
        for number in range(pairs):
            for name in list(ways)[:: 1 if number % 2 else -1]:
                start = time.process_time()
                outcomes[name] = ways[name]()
                seconds[name].append(time.process_time() - start)
        expected = outcomes["serial reference"]
        for name in ways:
            if outcomes[name] != expected:
                raise SystemExit(f"{name}: other answers or decisions than the reference on the {run} run")
            ratios = [r / s for r, s in zip(seconds["serial reference"], seconds[name], strict=True)]
            accepted = sum(o[0] == "accepted" for o in expected.values()) / len(expected)
            results[run, name] = statistics.median(seconds[name]), statistics.median(ratios), accepted
    return results


def table(samples: int, pairs: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder) / "benchmark", samples)
        results = measure(machine, pairs)
    machine_line = f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__.split('+')[0]}"
    setting = (
        f"{machine.n} samples of the embedded benchmark, batches of {BATCH}, float32, one thread; {machine_line}, "
        f"transformers {transformers.__version__}; CPU time, median of {pairs} interleaved rounds; answers, decisions "
        "and every turn identical."
    )
    columns = ("run", "accepted", "way", "CPU s", "s / sample", "faster than the reference")
    lines = [setting, "", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for (run, way), (spent_s, ratio, accepted) in results.items():
        lines.append(
            f"| {run} | {accepted:.0%} | {way} | {spent_s:.1f} | {spent_s / machine.n:.3f} | {ratio:.2f}x |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    parser.add_argument("--samples", type=int, default=20, help="samples per task")
    parser.add_argument("--pairs", type=int, default=5, help="rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = table(arguments.samples, arguments.pairs)
    print(measured)
    if arguments.write:
        write_between_markers(Path(__file__).with_name("README.md"), "bench_funnel", measured)
