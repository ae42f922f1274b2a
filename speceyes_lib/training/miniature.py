"""The recipe in miniature: every arm and seed a run of its own, measured before and after on held-out questions.

A folder holds `start` (the weakened agent), and for each arm and seed a folder `<arm>-<seed>` (see `grpo`). Beside each
model, `held_out.csv` says what the agent did on held-out questions. What is finished is kept: the same call continues
after an interruption, and one with more steps continues the runs.

An arm is what differs from the defaults of `grpo.Settings`. Two arms differ in the bonus for the tool alone; the third
learns so fast that it destroys the agent, which is what the early warnings are for.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from ..demo import scenes
from ..errors import UserError, nearest
from ..models.transformers import TransformersBackend
from ..paths import resolve, shown
from ..runs.processes import end_with_parent
from . import grpo
from .evaluation import held_out_samples
from .grpo import Settings
from .weakened_start import weaken

FOLDER = "data/runs/recipe"
AGENT = "data/demo/models/agent"
HELD_OUT = "held_out.csv"
ARMS: dict[str, dict[str, Any]] = {
    "bonus": {},
    "no_bonus": {"tool_bonus": 0.0},
    "rate_too_high": {"learning_rate": 6e-4, "warm_up": 0, "betas": (0.9, 0.95), "steps": 16},
}
DEFAULTS = Settings()
AT_ONCE = 64  # trajectories of a measurement that are played together


def train_arms(
    folder: str | Path = FOLDER,
    arms: Sequence[str] = ("bonus", "no_bonus"),
    seeds: Sequence[int] = (0,),
    settings: Settings = DEFAULTS,
    held_out: int = 100,
    processes: int = 2,
    start: str | Path = "",
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Train every arm with every seed, or finish what is not; returns the folders of the runs.

    Args:
        folder: of all runs.
        arms: of `ARMS`.
        seeds: of prompts and sampling.
        settings: what arms do not change.
        held_out: questions that are answered before and after.
        processes: runs that are trained at once, each with one thread.
        start: the agent to start from; by default the embedded one, weakened.
        report: gets a line of text as work goes on.

    Raises:
        UserError: there is no such arm.
        StageError: a run in the folder has other settings.
    """
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise UserError(f"arm {unknown[0]!r}: expected one of {', '.join(ARMS)}{nearest(unknown[0], ARMS)}")
    home = resolve(folder)
    first = resolve(start) if start else home / "start"
    if not start and not first.is_dir():
        report("weakening the agent")
        weaken(AGENT, first)
    jobs = [(first, home / "start", None, held_out)]
    for seed in seeds:
        for arm in arms:
            changed = replace(settings, seed=seed, **ARMS[arm])
            changed = replace(changed, steps=min(changed.steps, settings.steps))
            jobs.append((first, home / f"{arm}-{seed}", changed, held_out))
    # fresh processes: torch's threads and generators are theirs alone
    with ProcessPoolExecutor(processes, get_context("spawn"), end_with_parent) as pool:
        for done in as_completed([pool.submit(_one, *job) for job in jobs]):
            report(f"finished {shown(done.result())}")
    return [out for _, out, changed, _ in jobs if changed is not None]


def _one(start: Path, out: Path, settings: Settings | None, held_out: int) -> Path:
    """Train one run and measure it; without settings, measure the start."""
    import torch

    torch.set_num_threads(1)
    model = grpo.train(start, out, settings) if settings else start
    file = out / HELD_OUT
    step = settings.steps if settings else 0
    if held_out and not _is_measured(file, held_out, step):
        out.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        table = measure(model, held_out, settings or DEFAULTS).assign(step=step)
        table.to_csv(partial, index=False, float_format="%.4f")
        partial.replace(file)
    return out


def _is_measured(file: Path, held_out: int, step: int) -> bool:
    if not file.is_file():
        return False
    table = pd.read_csv(file)
    return len(table) == 2 * held_out and (table["step"] == step).all()


def measure(model: str | Path, n: int, settings: Settings = DEFAULTS) -> pd.DataFrame:
    """What an agent does on `n` held-out questions, greedily and sampled.

    Returns:
        Two rows per question: sampling ("greedy" or "sampled"), sample (its number), kind, w (size of the target
        beside the picture), hard, right, tool (a crop came back), turns, format_error, box_iou (of the first crop with
        the teacher's box; nan without one).
    """
    import torch

    backend = TransformersBackend(model, "agent", dtype="float32")
    prompts = [grpo.Prompt(s.scene, s.question, s.picture) for s in held_out_samples(n)]
    rows = []
    for sampling, temperature in {"greedy": 0.0, "sampled": settings.temperature}.items():
        torch.manual_seed(settings.seed)
        for at in range(0, n, AT_ONCE):
            rollouts = grpo.openings(backend, settings, prompts[at : at + AT_ONCE], name=f"{sampling} {at}")
            grpo.play(backend, rollouts, temperature)
            grpo.pay(rollouts, settings)
            for number, rollout in enumerate(rollouts, at):
                scene, paid = rollout.prompt.scene, rollout.paid
                rows.append(
                    {
                        "sampling": sampling,
                        "sample": number,
                        "kind": rollout.prompt.question.kind,
                        "w": scene.w,
                        "hard": scene.w < scenes.HARD_W,
                        "right": bool(paid.right),
                        "tool": paid.tool,
                        "turns": len(rollout.path.turns),
                        "format_error": paid.format_error,
                        "box_iou": rollout.first_box_iou,
                    }
                )
    return pd.DataFrame(rows)


def clean(folder: str | Path = FOLDER) -> None:
    """Remove the models of finished runs; what was measured stays."""
    for checkpoints in resolve(folder).glob("*/checkpoints"):
        shutil.rmtree(checkpoints)
