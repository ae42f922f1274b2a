"""Train the text pair of the tool tasks from scratch: ``speceyes train tools-actor --seed 1 --out FOLDER``.

The actor thinks and calls tools; the speculator predicts the actor's next call without thinking. Both are Qwen3 models
with the closed vocabulary of `demo/tool_world.py`.

The hard part is to look a value up by two keys, row and column. Nothing else works before this does, so training
begins with a dense *drill* of look-ups. A drill that is not mastered by its cap ends the attempt, and another one
begins with a derived seed, which training.json records. After the drill come the tasks:

1. *drill*: one table and many look-ups, with comparisons of digits.
2. *easy* (actor): tasks of level 1. *copy* (speculator): tasks without a choice, whose arguments can all be copied.
   Without this phase the choices, which nobody can predict without thinking, drown what can be learned.
3. *tasks*: all levels. A part of the actor's sequences stays drill.

This file is not split: recipe, model, tokenizer and command are one subject, and each is short.
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
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F

from ..demo import tool_world
from ..demo.tool_vocabulary import END, PAD, PATTERN, SPECIAL_TOKENS, TOKEN_IDS, UNKNOWN, VOCABULARY, encode
from ..demo.tool_world import Segment
from ..errors import UserError
from ..paths import resolve, shown
from . import tool_evaluation
from .model_card import tool_model_card
from .muon import Muon32

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Role = Literal["actor", "speculator"]
ACTOR_FOLDER, SPECULATOR_FOLDER = "data/demo/models/tools_actor", "data/demo/models/tools_speculator"
HEADS, GROUPS = 4, 2  # of queries, and of keys and values
ATTENTION = "speceyes_plain"
SEQUENCES = 96  # drawn at once and sorted by length, so that batches need little padding


@dataclass(frozen=True)
class Shape:
    """Sizes of a model.

    rope_theta: base of the rotary positions. copies: the first two layers start as heads that copy (`start_copying`).
    """

    hidden: int
    layers: int
    rope_theta: float
    copies: bool


SHAPES = {"actor": Shape(128, 3, 1e6, True), "speculator": Shape(128, 2, 1000.0, False)}
WEIGHTS = {
    "layout": 0.2,
    "goal": 0.5,
    "attribute": 0.5,
    "open": 2.0,
    "name": 2.0,
    "plan": 1.0,
    "lookup": 2.0,
    "rest": 2.0,
    "compare": 2.0,
    "digits": 1.0,
    "keep": 3.0,
    "best": 1.0,
    "row_number": 1.0,
    "row_name": 1.0,
    "entity": 2.0,
    "answer": 1.0,
    "argument_code_exec": 4.0,  # a list of up to six values, copied in order
}
# about equal weight per argument: an expression has seven tokens, a path two
SPECULATOR_WEIGHTS = WEIGHTS | {
    "argument_web_search": 5.0,
    "argument_enhanced_search": 5.0,
    "argument_file_read": 3.0,
    "argument_vision_ocr": 3.0,
    "argument_vision_analyze": 2.0,
    "argument_calculate": 1.5,
    "argument_code_exec": 0.7,
}


@dataclass(frozen=True)
class ToolPhase:
    """One stretch of training.

    draws: what is drawn. steps: its length, or with `mastery` its cap. mastery: running accuracy of every tag in
    `mastered` above which the phase ends early; not reached by the cap = stalled. drill: share of drill sequences.
    totals: share of sequences that are tasks with a program, beside those that are drawn by chance.
    """

    name: str
    draws: Literal["drill", "easy", "copy", "tasks"]
    steps: int
    mastery: float | None = None
    mastered: tuple[str, ...] = ("lookup",)
    min_steps: int = 60
    drill: float = 0.0
    totals: float = 0.0
    required: bool = True


@dataclass(frozen=True)
class ToolRecipe:
    """Everything that determines a training run, except the seed."""

    phases: tuple[ToolPhase, ...]
    tokens: int  # of a batch, padding included
    adamw_rate: float = 1.5e-3
    muon_rate: float = 3e-3
    max_attempts: int = 4


TOOL_RECIPES: dict[str, ToolRecipe] = {
    "actor": ToolRecipe(
        (
            ToolPhase("drill", "drill", 400, 0.93, ("lookup", "row_name", "compare"), min_steps=40),
            ToolPhase("easy", "easy", 60),
            ToolPhase("tasks", "tasks", 1000, drill=0.25, totals=0.15),
        ),
        tokens=4096,
    ),
    "speculator": ToolRecipe(
        (
            ToolPhase("copy", "copy", 200),
            ToolPhase("tasks", "tasks", 350),
        ),
        tokens=4096,
    ),
}


def smoke_tool_recipe(role: Role) -> ToolRecipe:
    """The same phases with two steps each. It runs every line and learns nothing."""
    recipe = TOOL_RECIPES[role]
    phases = tuple(dataclasses.replace(phase, steps=2, mastery=None) for phase in recipe.phases)
    return dataclasses.replace(recipe, phases=phases, tokens=1024)


class DrillStalled(Exception):
    """A phase reached its cap without mastery."""


# ------------------------------------------------------------------------------------------------- model
def build_tool_model(role: Role) -> PreTrainedModel:
    """A freshly initialised actor (0.6 M parameters) or speculator (0.4 M), float32, from torch's global generator."""
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    shape = SHAPES[role]
    config = Qwen3Config(
        vocab_size=len(VOCABULARY),
        hidden_size=shape.hidden,
        intermediate_size=3 * shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=HEADS,
        num_key_value_heads=GROUPS,
        head_dim=shape.hidden // HEADS,
        max_position_embeddings=1024,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=True,
        attention_bias=False,
        pad_token_id=TOKEN_IDS[PAD],
        bos_token_id=None,
        eos_token_id=TOKEN_IDS[END],
    )
    model = Qwen3ForCausalLM(config)
    if shape.copies:
        start_copying(model)
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=TOKEN_IDS[END], pad_token_id=TOKEN_IDS[PAD]
    )
    return model


@torch.no_grad()
def start_copying(model: PreTrainedModel) -> None:
    """Set the first weights so that two layers copy: what followed this token, or this pair of tokens, follows again.

    Models of this size find that by themselves, but when depends on chance, and until then they learn little else. All
    weights are trained afterwards.

    Layer 1, heads 1 and 2: look one and two tokens back, by the fast rotary frequencies, and note what is there.
    Layer 2, head 1: finds places whose last token is this one; head 3: places whose last but one is the one before
    this. Both by the slow frequencies, which distance hardly turns, and both write the token of that place.
    """
    config = model.config
    hidden, size = config.hidden_size, config.head_dim
    half = size // 2
    angle = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    fast, slow = torch.arange(3), torch.nonzero(angle < 0.01).flatten()
    content = torch.cat([slow, slow + half])  # dimensions of a head that compare contents
    # a constant direction in all embeddings: what queries and keys that only know positions are made of
    table = model.get_input_embeddings().weight
    constant = torch.nn.functional.normalize(torch.randn(hidden), dim=0)
    table += constant * table.norm(dim=1).mean()

    def turned(offset: int) -> torch.Tensor:
        vector = torch.zeros(size)
        vector[fast], vector[fast + half] = torch.cos(offset * angle[fast]), torch.sin(offset * angle[fast])
        return vector

    basis = torch.linalg.qr(torch.randn(hidden, hidden))[0].T
    basis = torch.nn.functional.normalize(basis - (basis @ constant)[:, None] * constant, dim=1)
    read, one_back, two_back = basis[:size], basis[size : 2 * size], basis[2 * size : 3 * size]
    first, second = (layer.self_attn for layer in model.model.layers[:2])

    def rows(weight: torch.Tensor, head: int) -> torch.Tensor:
        return weight[head * size : (head + 1) * size]

    for head, offset in ((0, 0), (1, -1)):
        rows(first.q_proj.weight, head).mul_(0.25).add_(torch.outer(turned(offset), constant), alpha=0.3)
    rows(first.k_proj.weight, 0).mul_(0.25).add_(torch.outer(turned(1), constant), alpha=0.3)
    rows(first.v_proj.weight, 0).copy_(0.24 * read)
    first.o_proj.weight[:, : 2 * size] = 0.24 * torch.cat([one_back, two_back]).T
    for norm in (first.q_norm, first.k_norm):
        norm.weight.fill_(2.0)

    def compare(head: int, query: torch.Tensor, group: int, key: torch.Tensor) -> None:
        for target, source in (
            (rows(second.q_proj.weight, head), query),
            (rows(second.k_proj.weight, group), key),
        ):
            target.zero_()
            target[content] = 0.3 * source[: len(content)]
        copied = torch.linalg.qr(torch.randn(hidden, size))[0].T
        rows(second.v_proj.weight, group).copy_(0.33 * copied)
        second.o_proj.weight[:, head * size : (head + 1) * size] = 0.33 * copied.T

    compare(0, read, 0, one_back)
    compare(2, one_back, 1, two_back)
    for norm in (second.q_norm, second.k_norm):
        norm.weight.fill_(1.5)


def _plain_attention(_module, query, key, value, _mask, scaling=None, **_):
    """Causal attention for sequences padded on the right, which need no mask. Only for training."""
    batch, heads, length, size = query.shape
    groups = key.shape[1]
    scores = (query * scaling).reshape(batch, groups, -1, size) @ key.transpose(-1, -2)
    later = torch.full((length, length), float("-inf")).triu(1)
    scores = scores.view(batch, groups, heads // groups, length, length) + later
    mixed = torch.softmax(scores, -1).view(batch, groups, -1, length) @ value
    return mixed.view(batch, heads, length, size).transpose(1, 2).contiguous(), None


# ---------------------------------------------------------------------------------------------- training
class ToolTrainer:
    """One attempt. `run` yields one row of the curve per step."""

    def __init__(self, role: Role, recipe: ToolRecipe, seed: int) -> None:
        from transformers import AttentionInterface

        torch.manual_seed(seed)
        self.role, self.recipe, self.seed = role, recipe, seed
        self.rng = random.Random(seed)
        self.drawn = 0
        self.weights = WEIGHTS if role == "actor" else SPECULATOR_WEIGHTS
        AttentionInterface.register(ATTENTION, _plain_attention)
        self.model = build_tool_model(role).train()
        self.model.set_attn_implementation(ATTENTION)
        matrices, others = [], []
        for name, parameter in self.model.named_parameters():
            (matrices if parameter.ndim == 2 and "embed" not in name else others).append(parameter)
        muon = Muon32(matrices)
        adamw = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01)
        self.optimizers = ((muon, recipe.muon_rate), (adamw, recipe.adamw_rate))

    def run(self) -> Iterator[dict]:
        """Train through all phases, yielding what each step measured. Raises DrillStalled."""
        start, total = time.perf_counter(), 0
        for phase in self.recipe.phases:
            running: dict[str, float] = {}
            batches = self._batches(phase)
            for step in range(phase.steps):
                factor = min(1.0, (total + 1) / 30)
                if phase is self.recipe.phases[-1]:  # flat, then cosine down to 3 %
                    late = max(0.0, step / phase.steps - 0.5) * 2
                    factor *= 0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * late))
                log = self._step(next(batches), factor)
                total += 1
                for name, value in log.items():
                    running[name] = value if name not in running else 0.93 * running[name] + 0.07 * value
                yield {"phase": phase.name, "step": step, "seconds": time.perf_counter() - start, **log}
                if phase.mastery is None or step < phase.min_steps:
                    continue
                if min(running.get(tag, 0.0) for tag in phase.mastered) > phase.mastery:
                    break
            else:
                if phase.mastery is not None:
                    reached = {tag: round(running.get(tag, 0.0), 3) for tag in phase.mastered}
                    raise DrillStalled(f"{phase.name}: {reached} after {phase.steps} steps")

    def _sequence(self, phase: ToolPhase) -> list[Segment]:
        self.drawn += 1
        seed = f"training {self.seed} {self.drawn}"
        if phase.draws == "drill" or self.rng.random() < phase.drill:
            return tool_world.drill_segments(seed)
        level = kind = None
        if phase.draws == "easy":
            level = 1
        elif phase.draws == "copy":
            level, kind = self.rng.choice(((1, None), (3, "total"), (3, "scene")))
        elif phase.totals and self.rng.random() < phase.totals:
            level, kind = 3, "total"
        task = tool_world.draw_task(seed, level, kind, self.facts)
        return (
            tool_world.actor_segments(task) if self.role == "actor" else tool_world.speculator_segments(task)
        )

    def _batches(self, phase: ToolPhase) -> Iterator[list[tuple[list[int], list[str | None]]]]:
        while True:
            rows = []
            # as many articles as the splits have: with few, a search never brings the wrong one beside the right one
            self.facts = tool_world.draw_corpus(self.rng)
            for _ in range(SEQUENCES):
                ids: list[int] = []
                tags: list[str | None] = []
                for text, tag in self._sequence(phase):
                    tokens = encode(text)
                    ids += tokens
                    # finding the value is decided at its first digit
                    tags += [tag] + ["rest" if tag == "lookup" else tag] * (len(tokens) - 1)
                rows.append((ids, tags))
            rows.sort(key=lambda row: len(row[0]))
            batches: list[list] = [[]]
            for row in rows:
                if batches[-1] and len(row[0]) * (len(batches[-1]) + 1) > self.recipe.tokens:
                    batches.append([])
                batches[-1].append(row)
            self.rng.shuffle(batches)
            yield from batches

    def _step(self, rows: list[tuple[list[int], list[str | None]]], factor: float) -> dict[str, float]:
        for optimizer, rate in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
        length = max(len(ids) for ids, _ in rows)
        tokens = torch.zeros(len(rows), length, dtype=torch.long)
        weight = torch.zeros(len(rows), length)
        for i, (ids, tags) in enumerate(rows):
            tokens[i, : len(ids)] = torch.tensor(ids)
            weight[i, : len(ids)] = torch.tensor(
                [0.0 if t is None else self.weights.get(t, 2.0) for t in tags]
            )
        wanted = weight[:, 1:] > 0
        tags = [tag for _, row in rows for tag in row[1:] if tag is not None]
        states = self.model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1][wanted]
        logits = self.model.lm_head(states)
        target, share = tokens[:, 1:][wanted], weight[:, 1:][wanted]
        loss = (F.cross_entropy(logits, target, reduction="none") * share).sum() / share.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, _ in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        right = (logits.argmax(-1) == target).tolist()
        by_tag: dict[str, list[bool]] = {}
        for tag, value in zip(tags, right, strict=True):
            by_tag.setdefault(tag, []).append(value)
        return {"loss": loss.item(), **{tag: sum(v) / len(v) for tag, v in by_tag.items()}}


# --------------------------------------------------------------------------------------------- tokenizer
# A note in brackets behind the question is left out: the question itself names its files.
_TEMPLATE = """\
{%%- for message in messages -%%}
{%%- if message.role == 'user' -%%}<|user|>{{ message.content.split('[')[0] | trim }}<|im_end|>
{%%- elif message.role == 'assistant' -%%}<|assistant|>%s<|im_end|>
{%%- elif message.role == 'tool' -%%}<|tool|>{{ message.content }}<|im_end|>{%%- endif -%%}
{%%- endfor -%%}
{%%- if add_generation_prompt -%%}<|assistant|>{%%- endif -%%}"""
CHAT_TEMPLATES = {
    "actor": _TEMPLATE % "{{ message.content }}",
    # the speculator reads the calls of a turn and not its thought
    "speculator": _TEMPLATE
    % (
        "{%- if '<tool_call>' in message.content -%}"
        "{{ '<tool_call>' + message.content.split('<tool_call>')[1] }}{%- endif -%}"
    ),
}


def build_tool_tokenizer(role: Role) -> PreTrainedTokenizerFast:
    """The closed vocabulary as a tokenizer: the longest entry that fits, joined without blanks. Always the same."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(vocab=dict(TOKEN_IDS), unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATES[role]
    return fast


# ------------------------------------------------------------------------------------------- the command
def train_tool_model(
    role: Role,
    seed: int,
    out: str | Path,
    *,
    actor: str | Path = ACTOR_FOLDER,
    threads: int = 1,
    recipe: ToolRecipe | None = None,
    per_level: int = 40,
    report: Callable[[str], None] = print,
    report_every: int = 25,
) -> dict:
    """Train one model of the pair and write the folder `out`; returns the content of training.json.

    The folder holds weights (float16), tokenizer, training_curve.csv, training.json and README.md. It appears, or
    replaces an older one, only when everything is done.

    Args:
        role: the model.
        seed: of everything random.
        out: the folder.
        actor: folder of the actor whose calls the speculator is measured on. Not used for an actor.
        threads: torch's thread count.
        recipe: the phases; by default those of `TOOL_RECIPES`.
        per_level: validation tasks per level of the final measurement.
        report: gets a line of text every `report_every` steps and when an attempt ends.
        report_every: steps between two lines.

    Raises:
        UserError: no attempt masters the drill, or there is no actor to measure a speculator on.
    """
    recipe = recipe or TOOL_RECIPES[role]
    if role == "speculator" and not (resolve(actor) / "config.json").is_file():
        raise UserError(
            f"{shown(resolve(actor))}: no actor here to measure the speculator on; train tools-actor first"
        )
    torch.set_num_threads(threads)
    start, start_cpu = time.perf_counter(), time.process_time()
    curve: list[dict] = []
    attempts: list[dict] = []
    for number in range(recipe.max_attempts):
        trainer = ToolTrainer(role, recipe, seed + 1000 * number)
        outcome = "finished"
        try:
            for row in trainer.run():
                curve.append({"attempt": number, **row})
                if len(curve) % report_every == 0:
                    report(_progress(role, curve[-report_every:], time.process_time() - start_cpu))
        except DrillStalled as stalled:
            outcome = f"stalled in {stalled}"
        attempts.append({"seed": trainer.seed, "outcome": outcome})
        report(f"{role}: attempt {number} (seed {trainer.seed}) {outcome}")
        if outcome == "finished":
            break
    else:
        raise UserError(f"{role}: no attempt mastered the drill: {attempts}; try another --seed")
    facts = {
        "which": f"tools-{role}",
        "seed": seed,
        "attempts": attempts,
        "training_wall_s": round(time.perf_counter() - start, 1),
        "training_cpu_s": round(time.process_time() - start_cpu, 1),
        "threads": threads,
        "recipe": dataclasses.asdict(recipe),
    }
    facts["last_steps"] = _last_steps(curve)
    return save_tool_model(
        role, trainer.model, facts, curve, out, actor=actor, per_level=per_level, report=report
    )


def save_tool_model(
    role: Role,
    model: PreTrainedModel,
    facts: dict,
    curve: list[dict],
    out: str | Path,
    *,
    actor: str | Path = ACTOR_FOLDER,
    per_level: int = 40,
    report: Callable[[str], None] = print,
) -> dict:
    """Measure a trained model on the validation tasks and write its folder; returns the content of training.json."""
    out = resolve(out)
    partial = Path(f"{out}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    model.set_attn_implementation("sdpa")
    model.to(torch.float16).save_pretrained(partial)
    build_tool_tokenizer(role).save_pretrained(partial)
    _write_curve(partial / "training_curve.csv", curve)
    stored = load_tool_model(partial)
    episodes = tool_evaluation.run_episodes(
        stored if role == "actor" else load_tool_model(actor), "validation", per_level
    )
    figures = (
        tool_evaluation.actor_figures(episodes)
        if role == "actor"
        else tool_evaluation.speculator_figures(tool_evaluation.guess_frame(stored, episodes))
    )
    facts |= {
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": version("transformers"),
            "tokenizers": version("tokenizers"),
        },
        "machine": platform.machine(),
        "validation": figures,
    }
    text = json.dumps(facts, indent=2) + "\n"
    (partial / "training.json").write_text(text, "utf-8")
    (partial / "README.md").write_text(tool_model_card(facts), "utf-8")
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
    report(f"{role}: written to {shown(out)}")
    return json.loads(text)


def load_tool_model(folder: str | Path) -> PreTrainedModel:
    """A model of the pair in float32, for evaluation.

    Raises:
        UserError: the folder holds no saved model.
    """
    from transformers import AutoModelForCausalLM

    folder = resolve(folder)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{shown(folder)}: no model here (config.json is missing); train one with `speceyes train`"
        )
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def _progress(role: str, rows: list[dict], cpu_s: float) -> str:
    last, means = rows[-1], []
    for name in sorted(
        {key for row in rows for key in row} - {"attempt", "phase", "step", "seconds", "loss"}
    ):
        values = [row[name] for row in rows if name in row and row["phase"] == last["phase"]]
        if values:
            means.append(f"{name} {sum(values) / len(values):.2f}")
    begin = f"{role} {last['phase']} {last['step'] + 1} {last['seconds']:.0f} s ({cpu_s:.0f} s of CPU)"
    return f"{begin} loss {last['loss']:.3f} {' '.join(means)}"


def _last_steps(curve: list[dict], count: int = 50) -> dict[str, float]:
    """Mean accuracy per tag over the last steps: next tokens, given the right ones before."""
    rows, means = curve[-count:], {}
    for name in sorted(
        {key for row in rows for key in row} - {"attempt", "phase", "step", "seconds", "loss"}
    ):
        values = [row[name] for row in rows if name in row]
        means[name] = round(sum(values) / len(values), 4)
    return means


def _write_curve(path: Path, curve: list[dict], every: int = 10) -> None:
    """One line of means per `every` steps of a phase. Accuracies that it does not measure are empty."""
    names = list(
        dict.fromkeys(
            key for row in curve for key in row if key not in ("attempt", "phase", "step", "seconds")
        )
    )
    blocks: dict[tuple, list[dict]] = {}
    for row in curve:
        blocks.setdefault((row["attempt"], row["phase"], row["step"] // every), []).append(row)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["attempt", "phase", "step", "seconds", *names], lineterminator="\n")
        writer.writeheader()
        for rows in blocks.values():
            line = {key: rows[-1][key] for key in ("attempt", "phase", "step")}
            line["seconds"] = round(rows[-1]["seconds"], 1)
            for name in names:
                values = [row[name] for row in rows if name in row]
                line[name] = round(sum(values) / len(values), 4) if values else ""
            writer.writerow(line)
