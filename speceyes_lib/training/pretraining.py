"""Train the two demo models from scratch: ``speceyes train draft --seed 0 --out FOLDER``.

Models of this size that are trained on real pictures from the start learn the wording but not the look-up. So:

1. *look*: the language model alone, on symbolic visual tokens (the sum of its own embeddings of the shape's and
   the colour's word, plus noise), first with queries of two words, then in the full dialogue;
2. *dense*: the vision tower alone learns to emit those symbols for real pictures;
3. *joint*: everything on real pictures, every fourth step rehearsing *look*.

Look stages end when every kind of question is mastered; if one is not by its cap, the run starts again with a
derived seed, which training.json records.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import platform
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F

from ..agents import prompt_sets
from ..demo import scenes
from ..errors import UserError
from ..params import TrainParams
from ..paths import resolve
from . import evaluation
from .curriculum import (
    GOAL_WEIGHTS,
    GOALS,
    TOKENS_PER_IMAGE,
    Batch,
    Curriculum,
    Look,
    Packer,
    Wording,
    visible,
)
from .model_card import model_card
from .modeling import Which, build_model, build_processor, build_tokenizer, fast_vision
from .muon import Muon32

CURVE_COLUMNS = ("attempt", "phase", "step", "seconds", "loss", *GOALS)


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    steps: its length, or with `mastery` its cap. mastery: leave when the running accuracy of every kind in
    `mastered` exceeds this; not reached by the cap = stalled. asked: the kinds of questions it draws.
    """

    name: str
    task: Literal["symbols", "vision", "pictures"]
    steps: int
    wording: Wording = "full"
    mastery: float | None = None
    mastered: tuple[str, ...] = scenes.KINDS
    asked: tuple[str, ...] = scenes.KINDS
    min_steps: int = 60
    rate: float = 1.0

    def is_mastered(self, running: dict[str, float]) -> bool:
        """True once the running accuracy of every kind is high enough."""
        lowest = min(running.get(kind, 0.0) for kind in self.mastered)
        return self.mastery is not None and lowest > self.mastery


@dataclass(frozen=True)
class Recipe:
    """Everything that determines a training run, except the seed."""

    phases: tuple[Phase, ...]
    rows: int  # packed rows a step
    vision_images: int = 24  # images a step in `vision` phases
    adamw_rate: float = 1.5e-3
    muon_rate: float = 3e-3  # 0: AdamW trains the matrices too
    bfloat16: bool = False  # of forward and backward
    label_smoothing: float = 0.0
    max_attempts: int = 3


# Objects before relations: when all kinds came at once, relations were learned first, and colours of shapes stayed at
# chance for 600 steps.
_OBJECTS = ("color", "shape", "exist")
_FIRST = Phase("look, objects", "symbols", 500, "compact", mastery=0.9, mastered=_OBJECTS, asked=_OBJECTS)
_ZOOMED = tuple(f"zoom_{kind}" for kind in scenes.KINDS)
RECIPES: dict[str, Recipe] = {
    "draft": Recipe(
        phases=(
            _FIRST,
            Phase("look, compact", "symbols", 700, "compact", mastery=0.9),
            Phase("look, dialogue", "symbols", 500, "full", mastery=0.9),
            Phase("dense", "vision", 700),
            Phase("joint", "pictures", 250, rate=0.4),
        ),
        rows=16,
        label_smoothing=0.02,
    ),
    "agent": Recipe(
        phases=(
            dataclasses.replace(_FIRST, steps=900),
            Phase("look, compact", "symbols", 700, "compact", mastery=0.9),
            Phase("look, thought", "symbols", 500, "thought", mastery=0.9),
            Phase("look, dialogue", "symbols", 600, "full", mastery=0.9, mastered=_ZOOMED),
            Phase("dense", "vision", 700),
            Phase("joint", "pictures", 200, rate=0.4),
        ),
        rows=10,
    ),
}


def smoke_recipe(which: Which) -> Recipe:
    """The same phases with two steps each on a few rows. It runs every line and learns nothing."""
    recipe = RECIPES[which]
    phases = tuple(dataclasses.replace(phase, steps=2, mastery=None) for phase in recipe.phases)
    return dataclasses.replace(recipe, phases=phases, rows=3, vision_images=4)


class Stalled(Exception):
    """A look phase reached its cap without mastery."""


# ----------------------------------------------------------------------------------------------- training
class Trainer:
    """One attempt: a model, its optimisers and the losses. `run` yields one row of the curve per step."""

    def __init__(self, which: Which, recipe: Recipe, seed: int) -> None:
        torch.manual_seed(seed)
        self.which, self.recipe = which, recipe
        prompts = prompt_sets.load("demo")
        self.tokenizer = build_tokenizer(prompts)
        self.processor = build_processor(which, self.tokenizer)
        self.model = build_model(which, self.tokenizer).train()
        self.curriculum = Curriculum(which, prompts, random.Random(seed))
        self.packer = Packer(self.tokenizer)
        self.language = self.model.model.language_model
        self.embed = self.model.get_input_embeddings()
        self.hidden = self.model.config.text_config.hidden_size
        self.image_id = self.model.config.image_token_id
        self.goal_weights = torch.tensor(list(GOAL_WEIGHTS.values()))
        # Two probes, thrown away after training: visual tokens must know their row and column after layer 0,
        # words of a question where their object is after layer 1. Without them relations stay at chance.
        self.probes = torch.nn.ModuleDict(
            {name: torch.nn.Linear(self.hidden, 2 * scenes.GRID) for name in ("token", "word")}
        )
        self._layer_out: dict[int, torch.Tensor] = {}
        for i in (0, 1):
            self.language.layers[i].register_forward_hook(self._keep(i))
        self._optimizers()

    def _keep(self, layer: int) -> Callable:
        def hook(_module, _inputs, output) -> None:
            self._layer_out[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    def _optimizers(self) -> None:
        matrices, others = [], list(self.probes.parameters())
        for name, parameter in self.model.named_parameters():
            by_muon = self.recipe.muon_rate and parameter.ndim == 2 and "embed" not in name
            (matrices if by_muon else others).append(parameter)
        self.parameters = matrices + others
        self.optimizers = [
            (torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01), self.recipe.adamw_rate)
        ]
        if matrices:
            self.optimizers.insert(0, (Muon32(matrices), self.recipe.muon_rate))

    def run(self, progress: Callable[[int, int, str], None] = lambda *_: None) -> Iterator[dict]:
        """Train through all phases, yielding what each step measured. Raises Stalled."""
        start, total = time.perf_counter(), 0
        for phase in self.recipe.phases:
            running: dict[str, float] = {}
            progress(0, phase.steps, phase.name)
            for step in range(phase.steps):
                log = self._step(phase, step, warm_up=min(1.0, (total + 1) / 30))
                total += 1
                for name, value in log.items():
                    running[name] = value if name not in running else 0.92 * running[name] + 0.08 * value
                mastered = step >= phase.min_steps and phase.is_mastered(running)
                progress(step + 1, step + 1 if mastered else phase.steps, phase.name)
                yield {"phase": phase.name, "step": step, "seconds": time.perf_counter() - start, **log}
                if mastered:
                    break
            else:
                if phase.mastery is not None:
                    reached = {kind: round(running.get(kind, 0.0), 3) for kind in phase.mastered}
                    raise Stalled(f"{phase.name}: {reached} after {phase.steps} steps")

    def _step(self, phase: Phase, step: int, warm_up: float) -> dict[str, float]:
        self.curriculum.asked = phase.asked
        factor = warm_up * phase.rate
        if phase.mastery is None:  # flat, then cosine down to 4 %
            late = max(0.0, step / phase.steps - 0.5) * 2
            factor *= 0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * late))
        for optimizer, rate in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        log: dict[str, float] = {}
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            if phase.task == "vision":
                looks = [self.curriculum.vision_look() for _ in range(self.recipe.vision_images)]
                loss = self._vision_loss(self._see(looks)[0], looks, log)
            else:
                # real pictures with every fourth step on symbols, so that the look-up stays sharp
                symbolic = phase.task == "symbols" or step % 4 == 3
                rows = [self.curriculum.row(symbolic, phase.wording) for _ in range(self.recipe.rows)]
                batch = self.packer.pack(rows)
                if symbolic:
                    tokens = self.symbols(batch.looks)
                    tokens = tokens + 0.25 * tokens.std() * torch.randn_like(tokens)
                    loss = self.language_loss(batch, tokens, None, log)
                    if phase.task == "pictures":
                        log.clear()  # the curve of this phase is about pictures
                else:
                    tokens, deepstack = self._see(batch.looks)
                    loss = 0.3 * self._vision_loss(tokens, batch.looks, log)
                    loss = loss + self.language_loss(batch, tokens, deepstack, log)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, _ in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.item(), **log}

    def _see(self, looks: list[Look]) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
        """Vision tower: merged tokens [36 * looks, hidden] and, for the draft, its deepstack features."""
        images = self.processor.image_processor
        pixels = (
            torch.from_numpy(np.stack([np.asarray(look.pixels) for look in looks]))
            .permute(0, 3, 1, 2)
            .float()
            / 255
        )
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (images.image_mean, images.image_std))
        patches = images.patchify(
            (pixels - mean) / std, images.patch_size, images.temporal_patch_size, images.merge_size
        )[0]
        side = scenes.VIEW_PX // images.patch_size
        grid = torch.tensor([[1, side, side]] * len(looks))
        out = self.model.model.get_image_features(
            patches.reshape(-1, patches.shape[-1]), grid, return_dict=True
        )
        deepstack = [torch.cat(list(t)) for t in out.deepstack_features] if self.which == "draft" else None
        return torch.cat(list(out.pooler_output)), deepstack

    def _visible(self, looks: list[Look]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        seen = [visible(look.scene, look.box) for look in looks]
        return tuple(torch.from_numpy(np.concatenate(part)) for part in zip(*seen, strict=True))

    def symbols(self, looks: list[Look]) -> torch.Tensor:
        """The tokens the vision tower should emit [36 * looks, hidden]; unreadable objects fade into a mean one."""
        shape, color, clarity = self._visible(looks)
        table = self.embed.weight.detach()
        is_object, clarity = (shape > 0).float()[:, None], clarity[:, None]

        def word(index: torch.Tensor, ids: list[int]) -> torch.Tensor:
            words = table[torch.tensor(ids)]
            faded = clarity * words[index] + (1 - clarity) * words[1:].mean(0)
            return words[index] * (1 - is_object) + faded * is_object

        return word(shape, self.packer.shape_ids) + word(color, self.packer.color_ids)

    def _vision_loss(self, tokens: torch.Tensor, looks: list[Look], log: dict[str, float]) -> torch.Tensor:
        """Visual tokens against their symbols: which shape, which colour, and relative squared distance."""
        shape, color, _ = self._visible(looks)
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            target, table = self.symbols(looks).float(), self.embed.weight.detach().float()
        with torch.autocast("cpu", enabled=False):
            tokens = tokens.float()
            loss = torch.log1p(((tokens - target) ** 2).mean() / (target**2).mean())
            direction, is_object = F.normalize(tokens, dim=-1), shape > 0
            goals = (("shape", self.packer.shape_ids, shape), ("color", self.packer.color_ids, color))
            for name, ids, truth in goals:
                scores = 16 * direction @ F.normalize(table[torch.tensor(ids)], dim=-1).T
                loss = loss + F.cross_entropy(scores, truth)
                if name not in log:
                    log[f"token_{name}"] = (scores.argmax(1) == truth)[is_object].float().mean().item()
        return loss

    def language_loss(
        self, batch: Batch, tokens: torch.Tensor, deepstack: list[torch.Tensor] | None, log: dict[str, float]
    ) -> torch.Tensor:
        """Weighted cross-entropy of the goals plus the losses of the probes; accuracies go to `log`."""
        images = batch.ids == self.image_id

        def in_reading_order(features: torch.Tensor) -> torch.Tensor:
            return features.view(-1, TOKENS_PER_IMAGE, self.hidden)[batch.image_order].reshape(
                -1, self.hidden
            )

        inputs = self.embed(batch.ids)
        inputs = inputs.masked_scatter(images[..., None], in_reading_order(tokens).to(inputs.dtype))
        extra = {}
        if deepstack is not None:
            extra = {
                "visual_pos_masks": images,
                "deepstack_visual_embeds": [in_reading_order(t) for t in deepstack],
            }
        states = self.language(
            inputs_embeds=inputs,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
            **extra,
        ).last_hidden_state
        wanted = batch.goals[:, 1:] >= 0
        target, goal = batch.ids[:, 1:][wanted], batch.goals[:, 1:][wanted]
        logits = self.model.lm_head(states[:, :-1][wanted]).float()
        right = (logits.argmax(1) == target).float()
        for i, name in enumerate(GOALS):
            if (goal == i).any():
                log[name] = right[goal == i].mean().item()
        weight = self.goal_weights[goal]
        losses = F.cross_entropy(
            logits, target, reduction="none", label_smoothing=self.recipe.label_smoothing
        )
        cell = torch.arange(TOKENS_PER_IMAGE).repeat(int(images.sum()) // TOKENS_PER_IMAGE)
        known = batch.places >= 0
        where = self._probe_loss("token", 0, images, cell) + self._probe_loss(
            "word", 1, known, batch.places[known]
        )
        return (losses * weight).sum() / weight.sum() + 0.3 * where

    def _probe_loss(self, probe: str, layer: int, which: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
        scores = self.probes[probe](self._layer_out[layer][which].float()).float()
        row, column = scores[:, : scenes.GRID], scores[:, scenes.GRID :]
        return F.cross_entropy(row, cell // scenes.GRID) + F.cross_entropy(column, cell % scenes.GRID)


# ----------------------------------------------------------------------------------------------- the command
def train(
    which: Which,
    seed: int,
    out: str | Path,
    *,
    threads: int = 1,
    recipe: Recipe | None = None,
    held_out: int = 300,
    report: Callable[[str], None] = print,
    report_every: int = 25,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict:
    """Train one model and write the folder `out`; returns the content of training.json.

    The folder holds weights (float16), processor, training_curve.csv, training.json and README.md. It appears, or
    replaces an older one, only when everything is done.

    Args:
        which: the model.
        seed: of everything random.
        out: the folder.
        threads: torch's thread count.
        recipe: the phases; by default those of `RECIPES`.
        held_out: samples of the final measurement.
        report: gets a line of text every `report_every` steps and when an attempt ends.
        report_every: steps between two lines.
        progress: called as (steps done, steps at most, phase) after every step.

    Raises:
        UserError: no attempt masters the look phases.
    """
    if which not in get_args(Which):
        raise UserError(f"which: {which!r} is no demo model; choose from {', '.join(get_args(Which))}")
    torch.set_num_threads(threads)
    recipe = recipe or RECIPES[which]
    start = time.perf_counter()
    curve: list[dict] = []
    attempts: list[dict] = []
    for number in range(recipe.max_attempts):
        attempt_seed = seed + 1000 * number
        trainer = Trainer(which, recipe, attempt_seed)
        began = time.perf_counter()
        try:
            with fast_vision():
                for row in trainer.run(progress or (lambda *_: None)):
                    curve.append({"attempt": number, **row})
                    if len(curve) % report_every == 0:
                        report(_progress(which, curve[-report_every:]))
            outcome = "finished"
        except Stalled as stalled:
            outcome = f"stalled in {stalled}"
        attempts.append(
            {"seed": attempt_seed, "outcome": outcome, "wall_s": round(time.perf_counter() - began, 1)}
        )
        report(f"{which}: attempt {number} (seed {attempt_seed}) {outcome}")
        if outcome == "finished":
            break
    else:
        raise UserError(f"{which}: no attempt mastered the look phases: {attempts}; try another --seed")
    partial = Path(f"{out}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    trainer.model.to(torch.float16).save_pretrained(partial)
    trainer.processor.save_pretrained(partial)
    _write_curve(partial / "training_curve.csv", curve)
    facts = {
        "which": which,
        "seed": seed,
        "attempts": attempts,
        "training_wall_s": round(time.perf_counter() - start, 1),
        "threads": threads,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "recipe": dataclasses.asdict(recipe),
        "versions": _versions(),
        "machine": platform.machine(),
        "held_out": evaluation.evaluate(which, partial, n=held_out),
    }
    text = json.dumps(facts, indent=2) + "\n"
    (partial / "training.json").write_text(text, "utf-8")
    (partial / "README.md").write_text(model_card(facts), "utf-8")
    _replace(Path(out), partial)
    report(f"{which}: written to {out} after {time.perf_counter() - start:.0f} s")
    return json.loads(text)


def run_training(
    params: TrainParams, progress: Callable[[int, int, str], None] | None = None
) -> tuple[dict, Path]:
    """Train as the parameters of `train_demo_models` say; the content of training.json, and the folder written.

    Raises:
        UserError: as `train`.
    """
    folder = resolve(params.out)
    facts = train(
        params.which,
        params.seed,
        folder,
        threads=params.threads,
        recipe=smoke_recipe(params.which) if params.smoke else None,
        held_out=params.held_out,
        report=lambda line: None,
        progress=progress,
    )
    return facts, folder


def _replace(out: Path, finished: Path) -> None:
    old = Path(f"{out}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    finished.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _progress(which: str, rows: list[dict]) -> str:
    last = rows[-1]
    means = {}
    for name in dict.fromkeys(key for row in rows for key in row if key in GOALS or key.startswith("token_")):
        values = [row[name] for row in rows if name in row and row["phase"] == last["phase"]]
        if values:
            means[name] = sum(values) / len(values)
    shown = " ".join(f"{name} {value:.2f}" for name, value in means.items())
    return (
        f"{which} {last['phase']} {last['step'] + 1} {last['seconds']:.0f} s loss {last['loss']:.3f} {shown}"
    )


def _write_curve(path: Path, curve: list[dict], every: int = 10) -> None:
    """One line of means per `every` steps of a phase. Accuracies that it does not measure are empty."""
    blocks: dict[tuple, list[dict]] = {}
    for row in curve:
        blocks.setdefault((row["attempt"], row["phase"], row["step"] // every), []).append(row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, CURVE_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for rows in blocks.values():
            line = {key: rows[-1][key] for key in ("attempt", "phase", "step")}
            line["seconds"] = round(rows[-1]["seconds"], 1)
            for name in ("loss", *GOALS):
                values = [row[name] for row in rows if name in row]
                line[name] = round(sum(values) / len(values), 4) if values else ""
            writer.writerow(line)


def _versions() -> dict[str, str]:
    import tokenizers
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": np.__version__,
    }
