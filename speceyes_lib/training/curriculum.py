"""The training data: scenes as packed rows of tokens with a goal per token.

One row holds one picture and several independent continuations ("tails": questions, a tool call with its crop,
the router's question). A block mask lets every tail see only the shared prefix and itself. So a picture is encoded once
and used for many questions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..agents.prompt_sets import PromptSet
from ..demo import scenes
from ..demo.scenes import CELL_PX, COLORS, GRID, HARD_W, KINDS, SHAPES, VIEW_PX, W_MAX, W_MIN, Question, Scene
from . import dialogue
from .modeling import END_OF_TURN, IMAGE, UNUSED, Which

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from transformers import Qwen2Tokenizer

Wording = Literal["compact", "thought", "full"]
"""compact: "color star" -> "red". thought: the agent's answering thought -> the word. full: the real dialogue."""
ZOOM_W = 0.90  # the agent's teacher zooms below this window side: nearly always, as real agents do
ROUTER_W = 0.24  # below this the honest answer to "would zooming help?" is yes
TOKENS_PER_IMAGE = GRID * GRID
KIND_WEIGHTS = {"color": 1.0, "shape": 1.0, "exist": 1.3, "side": 1.5, "place": 1.5}  # relations are hardest
# goals of a token and their weight in the loss; a token without goal (None) is only read
GOAL_WEIGHTS = {
    "form": 0.5,  # fixed wording
    "end": 0.3,  # end of turn
    "box": 2.0,
    "router": 3.0,
    "decision": 4.0,  # first word of the agent's thought: zoom or answer. Same weight in both branches
    "thought": 4.0,  # repeats the query after the last picture; the answer is looked up from here
    "reason": 2.0,  # what proves a "yes"
    **dict.fromkeys(KINDS, 4.0),
    **{f"zoom_{kind}": 4.0 for kind in KINDS},  # the same question answered from a crop
}
GOALS = tuple(GOAL_WEIGHTS)
Segment = tuple[str, str | None]  # text, goal of its tokens


@dataclass(frozen=True)
class Look:
    """One image a row shows: the scene, the box it was cut out of (None: all) and the pixels (None: symbols)."""

    scene: Scene
    box: tuple[int, ...] | None
    pixels: Image | None


@dataclass
class Row:
    """prefix + tails; `looks[0]` belongs to the prefix, `looks[1]` to every image inside a tail."""

    prefix: list[Segment]
    tails: list[list[Segment]]
    looks: list[Look]


@dataclass
class Batch:
    """Tensors of `n` packed rows of length `t`.

    ids, goals, places [n, t] int64 (-1 = none); positions [3, n, t] int64; mask [n, 1, t, t] bool;
    looks: all images of the batch; image_order [m] int64: the look behind each image in reading order.
    """

    ids: torch.Tensor
    goals: torch.Tensor
    places: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    looks: list[Look]
    image_order: torch.Tensor


# ------------------------------------------------------------------------------- what a view shows where
def visible(scene: Scene, box: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per visual token of a view: shape (0 = ground, else 1 + index), colour (same), readability in [0, 1].

    Three arrays [36]. An object of radius 2 px or less in the view is unreadable, from 5 px on it is clear.
    """
    shape, color = np.zeros((GRID, GRID), int), np.zeros((GRID, GRID), int)
    clarity, best = np.ones((GRID, GRID), np.float32), np.zeros((GRID, GRID))
    left, top, right, _ = box or (0, 0, VIEW_PX, VIEW_PX)
    zoom = VIEW_PX / (right - left)
    for o in scene.objects:
        x, y, r = (o.x * VIEW_PX - left) * zoom, (o.y * VIEW_PX - top) * zoom, o.r * VIEW_PX * zoom
        for i in range(max(0, int((y - r) // CELL_PX)), min(GRID - 1, int((y + r) // CELL_PX)) + 1):
            for j in range(max(0, int((x - r) // CELL_PX)), min(GRID - 1, int((x + r) // CELL_PX)) + 1):
                across = max(0.0, min(x + r, (j + 1) * CELL_PX) - max(x - r, j * CELL_PX))
                down = max(0.0, min(y + r, (i + 1) * CELL_PX) - max(y - r, i * CELL_PX))
                overlap = across * down / min(CELL_PX**2, 4 * r * r)
                if overlap > max(0.22, best[i, j]):
                    best[i, j] = overlap
                    shape[i, j], color[i, j] = 1 + SHAPES.index(o.shape), 1 + COLORS.index(o.color)
                    clarity[i, j] = min(1.0, max(0.0, (r - 2) / 3))
    return shape.ravel(), color.ravel(), clarity.ravel()


def word_places(scene: Scene, box: Sequence[int] | None = None) -> dict[str, int]:
    """Shape and colour words of the scene -> visual token (row * 6 + column) their object is centred on."""
    left, top, right, _ = box or (0, 0, VIEW_PX, VIEW_PX)
    zoom = GRID / (right - left)

    def cell(position: float, start: int) -> int:
        return min(GRID - 1, max(0, int((position * VIEW_PX - start) * zoom)))

    return {
        word: cell(o.y, top) * GRID + cell(o.x, left) for o in scene.objects for word in (o.shape, o.color)
    }


# --------------------------------------------------------------------------------------------- curriculum
@dataclass
class Curriculum:
    """Draws rows for one model. All randomness comes from `rng`."""

    which: Which
    prompts: PromptSet
    rng: random.Random
    sizes_px: tuple[int, ...] = (384, 576, 768)
    asked: tuple[str, ...] = KINDS  # kinds of questions that are drawn
    _chat: dict = field(init=False, repr=False)

    def __post_init__(self) -> None:
        system = self.prompts.draft_system if self.which == "draft" else self.prompts.agent_system
        image = f"<|vision_start|>{IMAGE}<|vision_end|>"
        user, assistant = "<|im_start|>user\n", "<|im_start|>assistant\n"
        self._chat = {
            "open": f"<|im_start|>system\n{system}{END_OF_TURN}\n{user}{image}",
            "reply": f"{END_OF_TURN}\n{assistant}",
            "tool": f"\n{user}{self.prompts.tool_response_before}{image}{self.prompts.tool_response_after}"
            f"{END_OF_TURN}\n{assistant}",
        }

    def question(self, scene: Scene) -> Question:
        """A question that the scene admits."""
        kinds = [kind for kind in self.asked if scenes.admits(scene, kind)]
        (kind,) = self.rng.choices(kinds, [KIND_WEIGHTS[k] for k in kinds])
        return scenes.ask(scene, self.rng, kind)

    def block(self, question: Question) -> str:
        """The question in the words of the prompt set."""
        return self.prompts.question_block(
            question.text, None if question.kind == "exist" else question.options
        )

    def look(self, scene: Scene, symbolic: bool, zoom_to: Sequence[int] | None = None) -> list[Look]:
        """The whole view and, with `zoom_to`, the crop (same picture)."""
        picture = None if symbolic else scenes.render(scene, self.rng, self.rng.choice(self.sizes_px))
        boxes = [None] if zoom_to is None else [None, tuple(zoom_to)]
        return [Look(scene, box, None if picture is None else scenes.view(picture, box)) for box in boxes]

    def vision_look(self) -> Look:
        """One picture for the vision tower alone: mostly readable, for the agent often a crop."""
        scene = self._scene(hard_share=0.3)
        zoom = self.which == "agent" and self.rng.random() < 0.5
        return self.look(scene, False, scenes.teacher_box(scene) if zoom else None)[-1]

    def row(self, symbolic: bool, wording: Wording) -> Row:
        """One packed row. Symbolic rows show pairs more often, as only these admit relations."""
        pairs_only = symbolic and self.rng.random() < 0.6
        if self.which == "draft" or wording != "full":
            scene = self._scene(hard_share=0.12 if symbolic else 0.35, pairs_only=pairs_only)
            count = 6 if symbolic else 4
            tails = [self.answer_tail(self.question(scene), scene, wording) for _ in range(count)]
            if symbolic and wording != "compact":
                tails += self._compact_tails(scene)
            return Row([(self._chat["open"], None)], tails, self.look(scene, symbolic))
        scene = self._scene(hard_share=0.4, pairs_only=pairs_only, filling_share=0.12)
        router = self._router_tail(self.question(scene), scene)
        if scene.w >= ZOOM_W:
            tails = [self.answer_tail(self.question(scene), scene, wording) for _ in range(4)]
            return Row([(self._chat["open"], None)], [*tails, router], self.look(scene, symbolic))
        box = scenes.teacher_box(scene)
        direct = [self.answer_tail(self.question(scene), scene, wording) for _ in range(2)]
        zoomed = [self.zoom_tail(self.question(scene), box) for _ in range(2)]
        tails = [*direct, *zoomed, router, *(self._compact_tails(scene) if symbolic else [])]
        return Row([(self._chat["open"], None)], tails, self.look(scene, symbolic, self._shaken(box)))

    def _compact_tails(self, scene: Scene) -> list[list[Segment]]:
        """A few of the shortest questions, so that the first learned look-up is not forgotten."""
        return [self.answer_tail(self.question(scene), scene, "compact") for _ in range(2)]

    def _scene(self, hard_share: float, pairs_only: bool = False, filling_share: float = 0.0) -> Scene:
        n_objects = 2 if pairs_only else None
        if self.rng.random() < filling_share:
            return scenes.sample_scene(self.rng, ZOOM_W, W_MAX, n_objects)
        hard = self.rng.random() < hard_share
        bounds = (W_MIN, HARD_W) if hard else (HARD_W, W_MAX)
        return scenes.sample_scene(self.rng, *bounds, n_objects)

    def _shaken(self, box: tuple[int, ...]) -> tuple[int, ...]:
        """Sometimes a box that is off by one visual token, because an answer must survive slightly wrong calls."""
        step = [0, 0]
        step[self.rng.randrange(2)] = self.rng.choice((CELL_PX, -CELL_PX))
        moved = tuple(v + step[i % 2] for i, v in enumerate(box))
        return moved if self.rng.random() < 0.3 and min(moved) >= 0 and max(moved) <= VIEW_PX else box

    def answer_tail(self, question: Question, scene: Scene, wording: Wording) -> list[Segment]:
        """A question with its answer from the whole view."""
        if wording == "compact":
            # without the space of the sentence: another token than the symbols are made of. With the same token the
            # colours of shapes were never learned
            return [(question.short + "\n", None), (question.answer, question.kind)]
        if wording == "thought" and self.which == "agent":
            return [
                (f"<think>{dialogue.answer_thought(question)}</think>\n<answer>", None),
                *_sentence(question, question.kind),
            ]
        prompt = (self.block(question) + self._chat["reply"], None)
        if self.which == "draft":
            return [prompt, *_sentence(question, question.kind), (END_OF_TURN, "end")]
        # where the teacher would zoom, a direct answer is the honest best of a forced first look: the words
        # that force it are given, not learned
        return [
            prompt,
            *self._answer_turn(question, question.kind, "decision" if scene.w >= ZOOM_W else None),
        ]

    def _answer_turn(self, question: Question, goal: str, first_word_goal: str | None) -> list[Segment]:
        forced = self.prompts.forced_look_prefix.removeprefix("<think>")
        first_word, rest = forced.split(" ", 1)
        thought = dialogue.answer_thought(question).removeprefix(forced)
        return [
            ("<think>", "form" if first_word_goal else None),
            (first_word, first_word_goal),
            (f" {rest}", "form" if first_word_goal else None),
            (thought, "thought"),
            ("</think>\n<answer>", "form"),
            *_sentence(question, goal),
            (f"</answer>{END_OF_TURN}", "form"),
        ]

    def zoom_tail(self, question: Question, box: Sequence[int]) -> list[Segment]:
        """A question with the call that zooms into the box, and the answer from the crop."""
        first_word, rest = dialogue.zoom_thought(question).split(" ", 1)
        before, after = dialogue.tool_call(("BOX",), question.label).split('"BOX"')
        return [
            (self.block(question) + self._chat["reply"], None),
            ("<think>", "form"),
            (first_word, "decision"),
            (f" {rest}", "form"),
            (f"</think>\n{before}", "form"),
            (", ".join(map(str, box)), "box"),
            (f"{after}{END_OF_TURN}", "form"),
            (self._chat["tool"], None),
            *self._answer_turn(question, f"zoom_{question.kind}", "form"),
        ]

    def _router_tail(self, question: Question, scene: Scene) -> list[Segment]:
        prompt = self.prompts.router_text(self.block(question)) + self._chat["reply"]
        return [(prompt, None), ("yes" if scene.w < ROUTER_W else "no", "router"), (END_OF_TURN, "end")]


def _sentence(question: Question, goal: str) -> list[Segment]:
    """The answer's parts with their goals; `goal` is that of the option itself."""
    goals = {"query": "thought", question.kind: goal}
    return [(text, goals.get(part, part)) for text, part in question.reply_parts()]


# ------------------------------------------------------------------------------------------------ packing
class Packer:
    """Turns rows into a `Batch` for one tokenizer."""

    def __init__(self, tokenizer: Qwen2Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._image_id = tokenizer.convert_tokens_to_ids(IMAGE)
        self._pad_id = tokenizer.pad_token_id
        unused = tokenizer.convert_tokens_to_ids(UNUSED)
        self.shape_ids = [unused, *(self._one(f" {word}") for word in SHAPES)]  # index 0: ground
        self.color_ids = [unused, *(self._one(f" {word}") for word in COLORS)]
        self._word_of = {self._one(f" {word}"): word for word in (*SHAPES, *COLORS)}
        self._known: dict[str, list[int]] = {}

    def _one(self, word: str) -> int:
        (token,) = self._tokenizer(word, add_special_tokens=False)["input_ids"]
        return token

    def token_ids(self, text: str) -> list[int]:
        """Tokens of a segment, every image opened up to its 36 visual tokens."""
        if text not in self._known:
            if len(self._known) > 20_000:
                self._known.clear()
            plain = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            repeat = {self._image_id: TOKENS_PER_IMAGE}
            self._known[text] = [t for t in plain for _ in range(repeat.get(t, 1))]
        return self._known[text]

    def pack(self, rows: Sequence[Row]) -> Batch:
        """The tensors of some rows."""
        import torch

        looks: list[Look] = []
        image_order: list[int] = []
        packed = []
        for row in rows:
            places = [word_places(look.scene, look.box) for look in row.looks]
            out = _PackedRow()
            end = self._append(out, row.prefix, 0, 0, places, -1)
            image_order.append(len(looks))
            for number, tail in enumerate(row.tails, 1):
                self._append(out, tail, end, number, places, 0)
                image_order += [len(looks) + 1] * sum(text.count(IMAGE) for text, _ in tail)
            packed.append(out)
            looks += row.looks
        n, t = len(packed), -(-max(len(row.ids) for row in packed) // 8) * 8

        def filled(name: str, empty: int) -> torch.Tensor:
            return torch.tensor([getattr(row, name) + [empty] * (t - len(row.ids)) for row in packed])

        tail = filled("tail", -1)
        causal = torch.ones(t, t, dtype=torch.bool).tril()
        shared = (tail[:, None, :] == 0) | (tail[:, None, :] == tail[:, :, None])
        # the diagonal keeps rows of padding from attending to nothing
        mask = (causal & shared & (tail[:, None, :] >= 0)) | torch.eye(t, dtype=torch.bool)
        positions = torch.zeros((3, n, t), dtype=torch.long)
        for i, row in enumerate(packed):
            positions[:, i, : len(row.ids)] = torch.tensor(row.positions).T
        return Batch(
            ids=filled("ids", self._pad_id),
            goals=filled("goals", -1),
            places=filled("places", -1),
            positions=positions,
            mask=mask[:, None],
            looks=looks,
            image_order=torch.tensor(image_order),
        )

    def _append(
        self,
        out: _PackedRow,
        segments: list[Segment],
        start: int,
        tail: int,
        places: list[dict[str, int]],
        seen: int,
    ) -> int:
        """Add segments from position `start`; `seen` is the look in force (-1 none yet). Returns the next position.

        Positions follow the models' own rule (get_rope_index): text counts up on all three axes, an image
        spans rows and columns and moves the count on by its larger side.
        """
        at = start
        for text, goal in segments:
            patch = 0
            for token in self.token_ids(text):
                if token == self._image_id:
                    out.positions.append((at, at + patch // GRID, at + patch % GRID))
                    patch += 1
                    if patch == TOKENS_PER_IMAGE:
                        at, patch, seen = at + GRID, 0, seen + 1
                else:
                    out.positions.append((at, at, at))
                    at += 1
                # words that are read, or written as the query, should know where their object is
                knows_place = seen >= 0 and goal in (None, "thought")
                out.places.append(places[seen].get(self._word_of.get(token, ""), -1) if knows_place else -1)
                out.ids.append(token)
                out.goals.append(-1 if goal is None else GOALS.index(goal))
                out.tail.append(tail)
        return at


@dataclass
class _PackedRow:
    ids: list[int] = field(default_factory=list)
    goals: list[int] = field(default_factory=list)
    tail: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    positions: list[tuple[int, int, int]] = field(default_factory=list)
