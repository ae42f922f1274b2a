"""Held-out measurement of the demo models with plain Hugging Face generate, and their model cards.

The suite's backends, agents and gate are not used, so these figures also check them.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..agents import prompt_sets
from ..demo import scenes
from ..gating.separability import token_separability
from ..judging.option_reader import named_option
from ..stats import ranking
from ..stats.resampling import Bootstrap
from ..tasks.images import iou
from .curriculum import ROUTER_W
from .modeling import Which, load_pair

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedModel, ProcessorMixin

HELD_OUT_BACKGROUNDS = 987  # seed of a bank of backgrounds no training picture used
W_BINS = (0.12, 0.20, 0.28, 0.36, 0.42, 0.60, 0.78, 0.95)
K = 64


@dataclass(frozen=True)
class HeldOut:
    """One held-out sample: scene, question, and the picture at 640-1408 px."""

    scene: scenes.Scene
    question: scenes.Question
    picture: Image


def held_out_samples(n: int, seed: int = 0, hard_share: float = 0.5) -> list[HeldOut]:
    """`n` samples, all kinds of questions in turn, a `hard_share` of them below w = .42; unseen in training."""
    rng = random.Random(f"held-out {seed}")
    backgrounds = scenes.bank(HELD_OUT_BACKGROUNDS)
    samples = []
    while len(samples) < n:
        hard = rng.random() < hard_share
        bounds = (scenes.W_MIN, scenes.HARD_W) if hard else (scenes.HARD_W, scenes.W_MAX)
        scene = scenes.sample_scene(rng, *bounds)
        kind = scenes.KINDS[len(samples) % len(scenes.KINDS)]
        if scenes.admits(scene, kind):
            picture = scenes.render(scene, rng, rng.choice((640, 768, 1408)), backgrounds)
            samples.append(HeldOut(scene, scenes.ask(scene, rng, kind), picture))
    return samples


def evaluate(which: Which, folder: str | Path, n: int = 300, seed: int = 0, batch_size: int = 25) -> dict:
    """Measure one saved model (float32) on `n` held-out samples; all shares in [0, 1], figures rounded to 4 digits.

    draft: accuracy (all, by kind, by w) and AUROC of `min` separability at K = 64 for being right.
    agent: accuracy with its tool and on a forced first look, share of zooms, malformed calls, agreement of its
    boxes with the teacher's (intersection over union), share of boxes that hold every object, router's "yes"
    by w and its agreement with the w < .24 rule.
    """
    samples = held_out_samples(n, seed)
    player = _Player(folder, batch_size)
    measured = (_draft if which == "draft" else _agent)(player, samples)
    return {"n": n, "seed": seed, **measured}


class _Player:
    """A loaded model that continues dialogues, greedily and in batches."""

    def __init__(self, folder: str | Path, batch_size: int) -> None:
        self.processor: ProcessorMixin
        self.model: PreTrainedModel
        self.processor, self.model = load_pair(folder)
        self.prompts = prompt_sets.load("demo")
        self.batch_size = batch_size

    def block(self, question: scenes.Question) -> str:
        return self.prompts.question_block(
            question.text, None if question.kind == "exist" else question.options
        )

    def reply(
        self, dialogues: Sequence[list[dict]], max_new_tokens: int, prefix: str = "", scores: bool = False
    ) -> list[tuple[str, np.ndarray | None]]:
        """Text of each reply (without end markers) and, with `scores`, its top-K log-probabilities [tokens, K]."""
        import torch

        replies = []
        for start in range(0, len(dialogues), self.batch_size):
            part = dialogues[start : start + self.batch_size]
            texts = [
                self.processor.apply_chat_template(d, tokenize=False, add_generation_prompt=True) + prefix
                for d in part
            ]
            images = [
                [c["image"] for m in d for c in m["content"] if isinstance(c, dict) and "image" in c]
                for d in part
            ]
            inputs = self.processor(text=texts, images=images, return_tensors="pt", padding=True)
            with torch.no_grad():
                out = self.model.generate(
                    **inputs,
                    max_new_tokens=max_new_tokens,
                    return_dict_in_generate=True,
                    output_logits=scores,
                )
            new = out.sequences[:, inputs["input_ids"].shape[1] :]
            ends = torch.isin(new, torch.tensor(self.model.generation_config.eos_token_id))
            top = None
            if scores:
                top = torch.stack(out.logits, 1).float().log_softmax(-1).topk(K).values.numpy()
            for i, tokens in enumerate(new):
                length = int(ends[i].int().argmax()) if ends[i].any() else len(tokens)
                text = self.processor.tokenizer.decode(tokens[:length])
                replies.append((text, None if top is None else top[i, :length]))
        return replies


# -------------------------------------------------------------------------------------------- the measures
def _draft(player: _Player, samples: list[HeldOut]) -> dict:
    dialogues = [player.prompts.draft_messages(player.block(s.question), s.picture) for s in samples]
    replies = player.reply(dialogues, max_new_tokens=16, scores=True)
    right = np.array(
        [
            answered(text, s.question) == s.question.answer
            for (text, _), s in zip(replies, samples, strict=True)
        ]
    )
    lowest = np.array([token_separability(top, K).min() if len(top) else np.nan for _, top in replies])
    kinds = np.array([s.question.kind for s in samples])
    return {
        **_accuracies("", right, samples),
        "auroc_min_separability": _auroc(lowest, right),
        "auroc_by_kind": {k: _auroc(lowest[kinds == k], right[kinds == k]) for k in scenes.KINDS},
        "separability_right_quantiles": _quantiles(lowest[right]),
        "separability_wrong_quantiles": _quantiles(lowest[~right]),
        "not_an_option": int(
            sum(answered(text, s.question) is None for (text, _), s in zip(replies, samples, strict=True))
        ),
    }


def _agent(player: _Player, samples: list[HeldOut]) -> dict:
    prompts = player.prompts
    opened = [prompts.agent_messages(player.block(s.question), s.picture) for s in samples]
    first = [text for text, _ in player.reply(opened, max_new_tokens=120)]
    boxes = [called_box(text) if "<tool_call>" in text else None for text in first]
    malformed = sum("<tool_call>" in text and box is None for text, box in zip(first, boxes, strict=True))
    final = list(first)
    zoomed = [i for i, box in enumerate(boxes) if box is not None]
    second = [
        [
            *opened[i],
            {"role": "assistant", "content": first[i]},
            prompts.tool_response(scenes.view(samples[i].picture, boxes[i])),
        ]
        for i in zoomed
    ]
    for i, (text, _) in zip(zoomed, player.reply(second, max_new_tokens=48), strict=True):
        final[i] = text
    right = np.array(
        [final_answer(text, s.question) == s.question.answer for text, s in zip(final, samples, strict=True)]
    )
    forced = player.reply(opened, max_new_tokens=48, prefix=prompts.forced_look_prefix)
    forced_right = np.array(
        [final_answer(t, s.question) == s.question.answer for (t, _), s in zip(forced, samples, strict=True)]
    )
    routed = [prompts.router_messages(player.block(s.question), s.picture) for s in samples]
    verdicts = [text.strip() for text, _ in player.reply(routed, max_new_tokens=4)]
    sensible = [
        v == ("yes" if s.scene.w < ROUTER_W else "no") for v, s in zip(verdicts, samples, strict=True)
    ]
    hard = np.array([s.scene.w < scenes.HARD_W for s in samples])
    zooms = np.array([box is not None for box in boxes])
    teacher = [scenes.teacher_box(samples[i].scene) for i in zoomed]
    return {
        **_accuracies("", right, samples),
        **_accuracies("forced_look_", forced_right, samples),
        "hard_accuracy": _mean(right[hard]),
        "hard_forced_look_accuracy": _mean(forced_right[hard]),
        "zoom_share": _mean(zooms),
        "zoom_share_by_w": _by_w(zooms, samples),
        "malformed_calls": int(malformed),
        "unanswered": int(sum("<answer>" not in text for text in final)),
        "box_iou": _mean([iou(boxes[i], t) for i, t in zip(zoomed, teacher, strict=True)]),
        "box_holds_all_objects": _mean([_holds(boxes[i], samples[i].scene) for i in zoomed]),
        "router_yes_by_w": _by_w(np.array([v == "yes" for v in verdicts]), samples),
        "router_sensible": _mean(sensible),
        "router_other_words": int(sum(v not in scenes.YES_NO for v in verdicts)),
    }


def called_box(text: str) -> tuple[float, float, float, float] | None:
    """The box of a well-formed zoom call that lies within the view; None for anything else."""
    call = re.search(r"<tool_call>\s*(\{.*\})\s*</tool_call>", text, re.S)
    try:
        box = json.loads(call[1])["arguments"]["bbox_2d"] if call else None
        x1, y1, x2, y2 = (float(v) for v in box)
    except (ValueError, TypeError, KeyError):
        return None
    inside = 0 <= x1 < x2 <= scenes.VIEW_PX and 0 <= y1 < y2 <= scenes.VIEW_PX
    return (x1, y1, x2, y2) if inside else None


def answered(text: str, question: scenes.Question) -> str | None:
    """The option that a reply names; None where it names none or several."""
    named, _ = named_option(text, None if question.kind == "exist" else question.options)
    return question.options[named] if isinstance(named, int) else named


def final_answer(text: str, question: scenes.Question) -> str | None:
    """The option named inside <answer></answer>; None without it."""
    answer = re.search(r"<answer>(.*?)</answer>", text, re.S)
    return answered(answer[1], question) if answer else None


def _holds(box: Sequence[float], scene: scenes.Scene, slack_px: float = 2.0) -> bool:
    for o in scene.objects:
        x1, y1, x2, y2 = (v * scenes.VIEW_PX for v in (o.x - o.r, o.y - o.r, o.x + o.r, o.y + o.r))
        if min(x1 - box[0], y1 - box[1], box[2] - x2, box[3] - y2) < -slack_px:
            return False
    return True


def _mean(values: Iterable) -> float | None:
    values = np.asarray(list(values), float)
    return round(float(values.mean()), 4) if len(values) else None


def _quantiles(values: np.ndarray) -> list[float] | None:
    """5, 25, 50, 75, 95 %."""
    return (
        [round(float(v), 3) for v in np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))]
        if len(values)
        else None
    )


def _accuracies(prefix: str, right: np.ndarray, samples: list[HeldOut]) -> dict:
    kinds = np.array([s.question.kind for s in samples])
    return {
        f"{prefix}accuracy": _mean(right),
        f"{prefix}accuracy_by_kind": {kind: _mean(right[kinds == kind]) for kind in scenes.KINDS},
        f"{prefix}accuracy_by_w": _by_w(right, samples),
    }


def _by_w(values: np.ndarray, samples: list[HeldOut]) -> dict[str, float | None]:
    w = np.array([s.scene.w for s in samples])
    return {f"{low:.2f}-{high:.2f}": _mean(values[(low <= w) & (w < high)]) for low, high in pairwise(W_BINS)}


def _auroc(scores: np.ndarray, right: np.ndarray) -> float | None:
    if right.all() or not right.any():
        return None
    return round(ranking.auroc(scores, right, bootstrap=Bootstrap(draws=1)).value, 4)
