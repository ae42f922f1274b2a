"""An agent with room to learn: it knows both kinds of turn, rarely zooms, and its boxes are sloppy.

The committed agent zooms nearly always, so that rewards could teach it nothing about when to zoom. A few steps of
fine-tuning on the dialogues of a worse teacher, and the mean of both models' weights, give a start whose format is
intact and whose crops often pay.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ..demo import scenes
from ..demo.scenes import CELL_PX, GRID, HARD_W
from ..paths import resolve
from .curriculum import Curriculum, Row, Segment, Wording
from .modeling import fast_vision, load_pair
from .pretraining import Phase, Recipe, Trainer

# Float32, and AdamW alone: processors without bfloat16 take three times as long for it, and most of that in Muon.
RECIPE = Recipe(
    phases=(Phase("worse teacher", "pictures", 40),),
    rows=8,
    adamw_rate=4e-4,
    muon_rate=0.0,
    bfloat16=False,
)
ZOOM_SHARE = 0.25  # of the worse teacher's dialogues, whatever the picture
SLOPPY_SHARE = 0.6  # of its boxes
COLD_SHARE = 0.6  # of the fine-tuned weights in the mean


def weaken(
    agent: str | Path,
    out: str | Path,
    seed: int = 1,
    recipe: Recipe = RECIPE,
    progress: Callable[[int, int, str], None] = lambda *_: None,
) -> Path:
    """Write a weakened copy of the embedded agent into a folder; returns the folder.

    Args:
        agent: folder of the embedded agent.
        out: folder to write. It appears, or replaces an older one, only when it is complete.
        seed: of the dialogues.
        recipe: of the fine-tuning.
        progress: called with steps done, steps in total and the name of the phase.
    """
    import torch

    trainer = Trainer("agent", recipe, seed)
    _, model = load_pair(resolve(agent))
    trainer.model.load_state_dict(model.state_dict())
    trainer.curriculum = _WorseTeacher("agent", trainer.curriculum.prompts, random.Random(seed))
    with fast_vision():
        for _ in trainer.run(progress):
            pass
    cold = trainer.model.state_dict()
    mean = {
        name: torch.lerp(value, cold[name], COLD_SHARE) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    trainer.model.load_state_dict(mean)
    partial = Path(f"{out}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    trainer.model.save_pretrained(partial)
    trainer.processor.save_pretrained(partial)
    shutil.rmtree(out, ignore_errors=True)
    return partial.rename(out)


class _WorseTeacher(Curriculum):
    """Zooms in few dialogues, and often beside the target."""

    def row(self, symbolic: bool, wording: Wording) -> Row:
        scene = self._scene(hard_share=0.5)
        box = scenes.teacher_box(scene)
        sloppy = self.rng.random() < SLOPPY_SHARE
        drawn = self._moved(box) if sloppy else box
        tails = [self._dialogue(scene, drawn, sloppy) for _ in range(4)]
        tails.append(self._router_tail(self.question(scene), scene))
        return Row([(self._chat["open"], None)], tails, self.look(scene, symbolic, drawn))

    def _dialogue(self, scene: scenes.Scene, box: Sequence[int], sloppy: bool) -> list[Segment]:
        question = self.question(scene)
        if self.rng.random() < ZOOM_SHARE:
            tail = self.zoom_tail(question, box)
            # what a bad crop does not show must not be learned as an answer
            return [(text, None if sloppy and str(goal).startswith("zoom_") else goal) for text, goal in tail]
        goal = question.kind if scene.w >= HARD_W else None
        opening = (self.block(question) + self._chat["reply"], None)
        return [opening, *self._answer_turn(question, goal, "decision")]

    def _moved(self, box: Sequence[int]) -> tuple[int, ...]:
        """The box grown by a visual token on each side, or shifted by up to two, within the view."""
        x1, y1, x2, y2 = (v // CELL_PX for v in box)
        if self.rng.random() < 0.4:
            cells = (max(0, x1 - 1), max(0, y1 - 1), min(GRID, x2 + 1), min(GRID, y2 + 1))
        else:
            dx = max(-x1, min(GRID - x2, self.rng.randint(-2, 2)))
            dy = max(-y1, min(GRID - y2, self.rng.randint(-2, 2)))
            cells = (x1 + dx, y1 + dy, x2 + dx, y2 + dy)
        return tuple(CELL_PX * cell for cell in cells)
