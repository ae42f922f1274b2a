"""DeepEyes' recipe in miniature: an agent learns, from rewards alone, when to use its tool.

One step: draw prompts, let the agent answer each of them `group_size` times at temperature 1 with its real tool, pay
every trajectory (`judging.rewards`), compare it with the others of its group, and make the tokens of the better ones
more likely. The agent, the tool and the backend are those of the suite, so that what is trained is what is measured.

Left out, compared with verl: several devices, a value model, batches that wait for slow rollouts, and resampling of
groups without spread. The vision tower is frozen. Everything else has verl's names, formulas and defaults; the defaults
that differ say so.

A run is a folder: `settings.json`, `metrics.jsonl`, `console.log` and `tensorboard/` (as verl's loggers write them),
dumps `rollouts/<step>.jsonl`, `checkpoints/<step>` (`save_pretrained`; the last two hold the optimiser's state too).
After a kill it resumes at its last checkpoint. Every step then repeats what it would have been: its random numbers
follow from seed and step.

The file is above 500 lines because the whole loop stands in one place, to be read from top to bottom.

Source: arXiv:2402.03300 (GRPO), arXiv:2503.14476 (token mean, clip-higher), arXiv:2505.14362 (the reward and the tool).
"""

from __future__ import annotations

import copy
import fcntl
import json
import random
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ..agents import prompt_sets
from ..agents.registry import agent_factory
from ..analysis import training_curves
from ..demo import scenes
from ..errors import StageError
from ..judging.rewards import RECIPE_WEIGHTS, Reward, Variant, Weights, reward
from ..models.base import Generation, GenerationRequest
from ..models.transformers import TransformersBackend
from ..paths import shown
from ..runs.event_files import append_scalars
from ..runs.files import write_atomically
from ..runs.records import Trajectory
from ..tasks.images import iou, resized_view
from .curriculum import KIND_WEIGHTS
from .evaluation import answered

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from ..agents.base import Agent
    from ..models.picture_memory import Row

AgentMaker = Callable[[str, str, Any, Any], "Agent"]
ADAM = ("exp_avg", "exp_avg_sq")  # the optimiser's state of each parameter


@dataclass(frozen=True)
class Settings:
    """Everything that determines a run, except the model that it starts from.

    Attributes:
        steps: how many.
        prompts: per step (the recipe: 128).
        group_size: trajectories per prompt.
        seed: of prompts and sampling.
        variant: rules of the reward (the recipe's own are `recipe`).
        tool_bonus: points of a right answer with the tool.
        divide_by_std: advantages are divided by the standard deviation of their group.
        learning_rate: of AdamW (the recipe: 1e-6, for a model of 7 billion parameters).
        warm_up: steps in which the learning rate rises (the recipe: none).
        betas, weight_decay, grad_clip: of AdamW, and the largest norm of a gradient.
        updates: passes over a batch. With one, ratios are 1 and nothing is clipped.
        clip_low, clip_high: how far the ratio of new to old probability may leave 1.
        dual_clip: bound of the loss for negative advantages.
        kl_coef: weight of the distance from the start, in the loss.
        entropy_coef: weight of the entropy, which is rewarded.
        loss: mean over all tokens of the batch, or of each sequence first.
        temperature: of sampling and of the loss.
        max_turns, max_new_tokens: of a trajectory, and of each of its turns.
        hard_share: prompts whose target is small beside the picture.
        micro_batch: sequences whose gradients are computed at once.
        save_every: steps between two checkpoints.
    """

    steps: int = 32
    prompts: int = 8
    group_size: int = 8
    seed: int = 0
    variant: Variant = "strict"
    tool_bonus: float = RECIPE_WEIGHTS.tool
    divide_by_std: bool = True
    learning_rate: float = 6e-5
    warm_up: int = 5
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    updates: int = 1
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 3.0
    kl_coef: float = 0.0
    entropy_coef: float = 0.0
    loss: Literal["token_mean", "sequence_mean"] = "token_mean"
    temperature: float = 1.0
    max_turns: int = 3
    max_new_tokens: int = 110
    hard_share: float = 0.7
    micro_batch: int = 16
    save_every: int = 4


@dataclass(frozen=True)
class Prompt:
    """A question about a scene, and its picture."""

    scene: scenes.Scene
    question: scenes.Question
    picture: Image


@dataclass
class TokenSequence:
    """Tokens as the model saw and wrote them. `written` marks its own, which alone are trained."""

    row: Row
    written: np.ndarray
    old: torch.Tensor | None = None  # log-probabilities of the written tokens when they were sampled


@dataclass
class Rollout:
    """One trajectory: what the agent did, the tokens of it, and what it was paid."""

    prompt: Prompt
    group: int
    agent: Agent
    sequences: list[TokenSequence] = field(default_factory=list)
    response: str = ""
    paid: Reward | None = None

    @property
    def path(self) -> Trajectory:
        """The agent's turns."""
        return self.agent.trajectory()

    @property
    def boxes(self) -> list[tuple[float, ...]]:
        """Those that the tool cut out, in pixels of the view."""
        return [turn.box_px for turn in self.path.turns if turn.crop_px is not None]

    @property
    def first_box_iou(self) -> float | None:
        """How well the first crop agrees with the teacher's box (intersection over union); None: there is no crop."""
        boxes = self.boxes
        return iou(boxes[0], scenes.teacher_box(self.prompt.scene)) if boxes else None


# ------------------------------------------------------------------------------------------------ rollouts


def draw_prompt(seed: int, step: int, number: int, hard_share: float) -> Prompt:
    """The prompt of a place in a run; it does not depend on what was drawn before."""
    rng = random.Random(f"grpo {seed} {step} {number}")
    hard = rng.random() < hard_share
    bounds = (scenes.W_MIN, scenes.HARD_W) if hard else (scenes.HARD_W, scenes.W_MAX)
    scene = scenes.sample_scene(rng, *bounds)
    kinds = [kind for kind in scenes.KINDS if scenes.admits(scene, kind)]
    (kind,) = rng.choices(kinds, [KIND_WEIGHTS[kind] for kind in kinds])
    return Prompt(scene, scenes.ask(scene, rng, kind), scenes.render(scene, rng, 640))


def play(backend: TransformersBackend, rollouts: Sequence[Rollout], temperature: float) -> None:
    """Let the agents of all rollouts work to their end, one turn of all of them at a time."""
    going = list(rollouts)
    while going:
        how = {"temperature": temperature, "reuse": "pictures"}  # the vision tower does not change
        requests = [replace(rollout.agent.next_request(), **how) for rollout in going]
        for rollout, request, reply in zip(going, requests, backend.generate(requests), strict=True):
            rollout.sequences = _extended(
                rollout.sequences, backend.prepared_row(request), _ids(backend, request, reply)
            )
            before = len(rollout.agent.messages)
            rollout.agent.feed(reply)
            rollout.response += request.prefill + reply.text + _replies(rollout.agent.messages[before + 1 :])
        going = [rollout for rollout in going if not rollout.agent.done]


def _ids(backend: TransformersBackend, request: GenerationRequest, reply: Generation) -> np.ndarray:
    """The tokens that were sampled, with the end token where the turn ended by one."""
    if reply.error is not None:
        raise StageError(f"{reply.id}: the model failed: {reply.error.message}")
    by_itself = reply.finish_reason == "stop" and not reply.text.endswith(request.stop)
    return np.array([*reply.token_ids, *([backend.tokenizer.eos_token_id] if by_itself else [])], np.int64)


def _extended(sequences: list[TokenSequence], row: Row, new: np.ndarray) -> list[TokenSequence]:
    """The sequences with another turn. It continues the last one if that is what the model saw, token by token."""
    written = np.zeros(len(row.ids), bool)
    if sequences and np.array_equal((last := sequences[-1]).row.codes, row.codes[: len(last.row.codes)]):
        written[: len(last.written)] = last.written
        sequences = sequences[:-1]
    ids, codes = (np.concatenate([part, new]) for part in (row.ids, row.codes))
    whole = replace(row, ids=ids, codes=codes)
    return [*sequences, TokenSequence(whole, np.concatenate([written, np.ones(len(new), bool)]))]


def _replies(messages: Sequence[dict]) -> str:
    """What the tool replied, as verl writes it into a response: role words, and no picture."""
    text = ""
    for message in messages:
        content = message["content"]
        parts = [{"text": content}] if isinstance(content, str) else content
        text += f"\n{message['role']}\n" + "".join(part.get("text", "") for part in parts) + "\nassistant\n"
    return text


# ------------------------------------------------------------------------------------------------ learning


def group_advantages(scores: np.ndarray, divide_by_std: bool = True) -> np.ndarray:
    """The advantages of trajectories, float64 [groups, group_size]: a score less the mean of its group.

    Args:
        scores: float [groups, group_size].
        divide_by_std: by the standard deviation (of n - 1), plus 1e-6. A group of one keeps its score, as in verl.
    """
    groups = np.repeat(np.arange(len(scores)), scores.shape[1])
    table = pd.DataFrame({"set": "train", "step": 0, "group": groups, "score": scores.ravel()})
    return training_curves.advantages(table, divide_by_std)["advantage"].to_numpy().reshape(scores.shape)


def token_losses(
    logprobs: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, settings: Settings
) -> torch.Tensor:
    """The clipped policy loss of each token [tokens]; the three inputs have a value per token.

    Source: PPO's clipped objective, with verl's bound for negative advantages.
    """
    import torch

    ratio = torch.exp(logprobs - old)
    clipped = ratio.clamp(1 - settings.clip_low, 1 + settings.clip_high)
    losses = torch.maximum(-advantages * ratio, -advantages * clipped)
    return torch.where(advantages < 0, torch.minimum(losses, -advantages * settings.dual_clip), losses)


class Learner:
    """The model that is trained, its optimiser, and the model it started from where that is needed."""

    def __init__(self, backend: TransformersBackend, settings: Settings) -> None:
        import torch

        self.backend, self.settings, self.model = backend, settings, backend.model
        self.model.model.visual.requires_grad_(False)
        self.names, parameters = zip(
            *((name, p) for name, p in self.model.named_parameters() if p.requires_grad), strict=True
        )
        self.optimizer = torch.optim.AdamW(
            parameters, lr=settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
        self.reference = copy.deepcopy(self.model) if settings.kl_coef else None

    def update(
        self, sequences: Sequence[TokenSequence], advantages: Sequence[float], step: int
    ) -> dict[str, float]:
        """One step of the optimiser, or `updates` of them, over a batch; returns verl's actor metrics.

        Args:
            sequences: of all trajectories.
            advantages: one per sequence, that of its trajectory.
            step: from 1, for the warm-up.
        """
        import torch

        rate = self.settings.learning_rate * min(1.0, step / max(1, self.settings.warm_up))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i].row.ids))
        n_tokens = sum(int(s.written.sum()) for s in sequences)
        sums: dict[str, float] = {}
        for _ in range(self.settings.updates):
            sums = dict.fromkeys(("pg_loss", "entropy", "pg_clipfrac", "ppo_kl", "kl_loss"), 0.0)
            for start in range(0, len(order), self.settings.micro_batch):
                part = order[start : start + self.settings.micro_batch]
                loss = self._loss(
                    [sequences[i] for i in part], [advantages[i] for i in part], n_tokens, len(order), sums
                )
                loss.backward()
            parameters = self.optimizer.param_groups[0]["params"]
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.settings.grad_clip))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        return {f"actor/{name}": value for name, value in sums.items()} | {
            "actor/grad_norm": norm,
            "actor/lr": rate,
        }

    def _loss(
        self,
        sequences: list[TokenSequence],
        advantages: list[float],
        n_tokens: int,
        n_sequences: int,
        sums: dict,
    ) -> torch.Tensor:
        """The share of the batch's loss that these sequences have; adds to `sums`."""
        import torch

        settings = self.settings
        logits, ids = self._logits(self.model, sequences)
        entropy = -(logits.exp() * logits).sum(-1)
        taken = logits.gather(1, ids[:, None])[:, 0]
        lengths = [int(s.written.sum()) for s in sequences]
        for sequence, logprobs in zip(sequences, taken.detach().split(lengths), strict=True):
            sequence.old = logprobs if sequence.old is None else sequence.old
        old = torch.cat([s.old for s in sequences])
        each = torch.repeat_interleave(torch.tensor(advantages, dtype=taken.dtype), torch.tensor(lengths))
        losses = token_losses(taken, old, each, settings)
        if settings.loss == "token_mean":
            weights = torch.full_like(losses, 1 / n_tokens)
        else:
            counts = torch.tensor(lengths, dtype=losses.dtype)
            weights = torch.repeat_interleave(1 / (counts * n_sequences), torch.tensor(lengths))
        loss = (weights * (losses - settings.entropy_coef * entropy)).sum()
        if self.reference is not None:
            with torch.no_grad():
                start = self._logits(self.reference, sequences)[0].gather(1, ids[:, None])[:, 0]
            distance = torch.exp(start - taken) - (start - taken) - 1
            kl = (weights * distance).sum()
            loss = loss + settings.kl_coef * kl
            sums["kl_loss"] += float(kl.detach())
        with torch.no_grad():
            ratio = torch.exp(taken - old)
            outside = (ratio < 1 - settings.clip_low) | (ratio > 1 + settings.clip_high)
            sums["pg_loss"] += float((weights * losses).sum())
            sums["entropy"] += float(entropy.sum()) / n_tokens
            sums["pg_clipfrac"] += float(outside.sum()) / n_tokens
            sums["ppo_kl"] += float((old - taken).sum()) / n_tokens
        return loss

    def logprobs(self, sequences: Sequence[TokenSequence]) -> torch.Tensor:
        """The log-probabilities of the written tokens of some sequences, one after the other [tokens]."""
        logits, ids = self._logits(self.model, sequences)
        return logits.gather(1, ids[:, None])[:, 0]

    def _logits(
        self, model: torch.nn.Module, sequences: Sequence[TokenSequence]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-softmax before each written token [tokens, vocabulary], and these tokens."""
        import torch

        inputs = self.backend.batch_tensors([s.row for s in sequences], remember=True)
        del inputs["past_key_values"]
        if "mm_encoder_outputs" in inputs:  # computed in inference mode, which a gradient cannot pass
            seen = inputs["mm_encoder_outputs"]["image"]
            deeper = [[t.clone() for t in layer] for layer in seen.deepstack_features]
            seen = SimpleNamespace(
                pooler_output=[t.clone() for t in seen.pooler_output], deepstack_features=deeper
            )
            inputs["mm_encoder_outputs"] = {"image": seen}
        width = inputs["input_ids"].shape[1]
        written = torch.zeros(len(sequences), width, dtype=torch.bool)
        for i, sequence in enumerate(sequences):
            written[i, width - len(sequence.written) :] = torch.from_numpy(sequence.written)
        logits = model(**inputs, use_cache=False).logits[:, :-1][written[:, 1:]].float()
        logprobs = torch.log_softmax(logits / self.settings.temperature, -1)
        return logprobs, inputs["input_ids"][written]

    # ------------------------------------------------------------------------------------ checkpoints
    def save(self, folder: Path) -> None:
        """Write the model, its processor and the optimiser's state into a new folder, complete or not at all."""
        from safetensors.torch import save_file

        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        # weights of widening layers are stored column by column (`read_in_one_stream`), which no file can hold
        state = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        self.model.save_pretrained(partial, state_dict=state)
        self.backend.processor.save_pretrained(partial)
        tensors = {}
        for name, parameter in zip(self.names, self.optimizer.param_groups[0]["params"], strict=True):
            values = self.optimizer.state.get(parameter, {})
            tensors |= {
                f"{what}/{name}": values[what].contiguous() for what in (*ADAM, "step") if what in values
            }
        save_file(tensors, partial / "optimizer.safetensors")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def load_optimizer(self, folder: Path) -> None:
        """Continue with the optimiser's state of a checkpoint."""
        from safetensors.torch import load_file

        tensors = load_file(folder / "optimizer.safetensors")
        for name, parameter in zip(self.names, self.optimizer.param_groups[0]["params"], strict=True):
            state = {
                what: tensors[f"{what}/{name}"] for what in (*ADAM, "step") if f"{what}/{name}" in tensors
            }
            if state:
                self.optimizer.state[parameter] = state


# ------------------------------------------------------------------------------------------------ a run


def train(
    start: str | Path,
    out: str | Path,
    settings: Settings = Settings(),
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Path:
    """Train an agent, or finish a run that was interrupted; returns the last checkpoint.

    Args:
        start: folder of the agent to start from.
        out: folder of the run.
        settings: of the run.
        progress: called with steps done, steps in total, and a line on the last one.

    Raises:
        StageError: the folder holds a run with other settings, or another process trains there.
        UserError: there is no model in `start`.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "run.lock").open("a") as lock:  # goes with the process, however it ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StageError(
                f"{shown(folder)}: another process trains here; wait for it or stop it"
            ) from None
        _continue(folder, Path(start), settings, progress)
    return folder / f"checkpoints/{settings.steps}"


def _continue(
    folder: Path, start: Path, settings: Settings, progress: Callable[[int, int, str], None]
) -> None:
    first = _prepared(folder, start, settings)
    if first >= settings.steps:
        return
    backend = TransformersBackend(
        folder / f"checkpoints/{first}" if first else start, "agent", dtype="float32"
    )
    learner = Learner(backend, settings)
    if first:
        learner.load_optimizer(folder / f"checkpoints/{first}")
    # a file per start, as TensorBoard's own writer does: the later one counts from its first step on
    events = folder / f"tensorboard/events.out.tfevents.{time.time_ns()}.speceyes"
    for step in range(first + 1, settings.steps + 1):
        metrics, dump = run_step(learner, step)
        (folder / f"rollouts/{step}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in dump), "utf-8"
        )
        line = " - ".join([f"step:{step}", *(f"{key}:{value!r}" for key, value in metrics.items())])
        with (folder / "console.log").open("a", encoding="utf-8") as console:
            console.write(line + "\n")
        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, "data": metrics}) + "\n")
        append_scalars(events, time.time(), step, metrics)
        # last, so that a run killed here repeats the step instead of missing its lines
        if step % settings.save_every == 0 or step == settings.steps:
            learner.save(folder / f"checkpoints/{step}")
            states = sorted((folder / "checkpoints").glob("[0-9]*/optimizer.safetensors"), key=_step_of)
            for state in states[:-2]:
                state.unlink()
        progress(step, settings.steps, f"score {metrics['critic/score/mean']:.2f}")


def run_step(learner: Learner, step: int) -> tuple[dict[str, float], list[dict]]:
    """Sample, pay and learn once; returns the metrics, and a row per trajectory, both with verl's names."""
    import torch

    settings, began_s = learner.settings, time.perf_counter()
    torch.manual_seed((settings.seed << 32) + step)
    rollouts = rollouts_of(learner.backend, settings, step)
    play(learner.backend, rollouts, settings.temperature)
    sampled_s = time.perf_counter()
    pay(rollouts, settings)
    scores = np.array([rollout.paid.score for rollout in rollouts])
    advantages = group_advantages(scores.reshape(-1, settings.group_size), settings.divide_by_std).ravel()
    pairs = [(s, a) for rollout, a in zip(rollouts, advantages, strict=True) for s in rollout.sequences]
    actor = learner.update(*zip(*pairs, strict=True), step=step)
    ended_s = time.perf_counter()
    metrics = _described("critic/score", scores) | _described("critic/advantages", advantages)
    metrics |= actor | _described("num_turns", np.array([2.0 * len(r.path.turns) for r in rollouts]))
    lengths = np.array(
        [sum(len(s.written) - int(np.argmax(s.written)) for s in r.sequences) for r in rollouts]
    )
    metrics |= _described("response_length", lengths.astype(float)) | _measured(rollouts)
    metrics |= {
        "timing_s/gen": sampled_s - began_s,
        "timing_s/update_actor": ended_s - sampled_s,
        "timing_s/step": ended_s - began_s,
    }
    return metrics, [_dumped(rollout, step, n) for n, rollout in enumerate(rollouts)]


def rollouts_of(backend: TransformersBackend, settings: Settings, step: int) -> list[Rollout]:
    """The agents of a step at their first turn, group after group."""
    numbers = range(settings.prompts)
    prompts = [draw_prompt(settings.seed, step, number, settings.hard_share) for number in numbers]
    return openings(backend, settings, prompts, settings.group_size, f"step {step}, prompt")


def openings(
    backend: TransformersBackend,
    settings: Settings,
    questions: Iterable[Prompt],
    group_size: int = 1,
    name: str = "prompt",
) -> list[Rollout]:
    """Agents at their first turn: `group_size` for each prompt, one after the other."""
    prompts = prompt_sets.load("demo")
    make = agent_factory(
        "deepeyes",
        spec=backend.image_spec,
        prompts=prompts,
        max_turns=settings.max_turns,
        max_new_tokens=settings.max_new_tokens,
    )
    rollouts = []
    for number, prompt in enumerate(questions):
        question = prompt.question
        block = prompts.question_block(question.text, None if question.kind == "exist" else question.options)
        view = resized_view(prompt.picture, backend.image_spec)
        for member in range(group_size):
            agent = make(f"{name} {number}.{member}", block, prompt.picture, view)
            rollouts.append(Rollout(prompt, number, agent))
    return rollouts


def pay(rollouts: Sequence[Rollout], settings: Settings) -> None:
    """Give every trajectory its reward. Answers are judged by rule: the scene's own answer is right."""
    weights = Weights(RECIPE_WEIGHTS.accuracy, RECIPE_WEIGHTS.format, settings.tool_bonus)
    for rollout in rollouts:
        question = rollout.prompt.question
        rollout.paid = reward(
            rollout.response, lambda answer, q=question: answered(answer, q) == q.answer,
            variant=settings.variant, crops=len(rollout.boxes), weights=weights,
        )  # fmt: skip


def _described(name: str, values: np.ndarray) -> dict[str, float]:
    return {f"{name}/{what}": float(getattr(values, what)()) for what in ("mean", "max", "min")}


def _measured(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What verl has no names for, as `speceyes/...`; a share of nothing is left out."""
    right = np.array([bool(r.paid.right) for r in rollouts])
    used = np.array([bool(r.boxes) for r in rollouts])
    overlaps = [overlap for r in rollouts if (overlap := r.first_box_iou) is not None]
    shares = {
        "acc": right,
        "acc_tool": right[used],
        "acc_no_tool": right[~used],
        "tool_rate": used,
        "format_error": np.array([r.paid.format_error for r in rollouts]),
        "failed_call": np.array([any(t.error and t.tool_call for t in r.path.turns) for r in rollouts]),
        "box_iou": np.array(overlaps),
    }
    return {f"speceyes/{name}": float(np.mean(values)) for name, values in shares.items() if len(values)}


def _dumped(rollout: Rollout, step: int, number: int) -> dict[str, Any]:
    return {
        "input": rollout.agent.block,
        "output": rollout.response,
        "gts": rollout.prompt.question.answer,
        "score": rollout.paid.score,
        "step": step,
        "uid": f"{step}-{rollout.group}_{number}_0",
        "boxes": [list(box) for box in rollout.boxes],
        "teacher_box": list(scenes.teacher_box(rollout.prompt.scene)),
        "w": rollout.prompt.scene.w,
        "kind": rollout.prompt.question.kind,
    }


def _step_of(file: Path) -> int:
    return int(file.parent.name)


def _prepared(folder: Path, start: Path, settings: Settings) -> int:
    """The step to continue after; what was written beyond the last checkpoint is removed, to be repeated."""
    wanted = json.loads(json.dumps(asdict(settings) | {"start": shown(start)}))
    file = folder / "settings.json"
    other = json.loads(file.read_text("utf-8")) if file.is_file() else wanted
    # `steps` may differ: a longer run begins with the steps of a shorter one
    if changed := ", ".join(key for key in wanted if key != "steps" and other.get(key) != wanted[key]):
        raise StageError(
            f"{shown(folder)} holds a run with other settings ({changed}); name another folder, or remove this one"
        )
    (folder / "rollouts").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints").mkdir(exist_ok=True)
    write_atomically(file, json.dumps(wanted, indent=1).encode() + b"\n")
    done = max((int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit()), default=0)
    for log, step_of in {
        folder / "metrics.jsonl": lambda line: json.loads(line)["step"],
        folder / "console.log": lambda line: int(line.split(" ", 1)[0].removeprefix("step:")),
    }.items():
        lines = log.read_text("utf-8").splitlines(keepends=True) if log.is_file() else []
        kept = "".join(line for line in lines if line.endswith("\n") and step_of(line) <= done)
        write_atomically(log, kept.encode())
    for dump in (folder / "rollouts").glob("*.jsonl"):
        if int(dump.stem) > done:
            dump.unlink()
    return done
