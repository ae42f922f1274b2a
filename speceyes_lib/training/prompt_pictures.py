"""The pictures that training runs of the embedded agent showed: drawn again from the seeds of their settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..demo.scenes import VIEW_PX
from .grpo import draw_prompt

if TYPE_CHECKING:
    from PIL.Image import Image

PictureOf = Callable[[str, int, int, int, str], "tuple[Image, tuple[int, int]] | None"]


def pictures_of_prompts(settings: Mapping[tuple[str, int], Mapping[str, Any]]) -> PictureOf:
    """A function of arm, seed, step, number and text of a prompt that returns its picture.

    Args:
        settings: (arm, seed) -> the run's `settings.json`, as `TrainingRuns.settings`.

    Returns:
        The function. It returns the picture, and the width and height in which boxes of the dump are given; or None
        where the run is not one of ours, or its prompt has another text.
    """

    def picture_of(
        arm: str, seed: int, step: int, number: int, text: str
    ) -> tuple[Image, tuple[int, int]] | None:
        run = settings.get((arm, seed), {})
        if not {"seed", "hard_share"} <= set(run):
            return None
        prompt = draw_prompt(run["seed"], step, number, run["hard_share"])
        return (prompt.picture, (VIEW_PX, VIEW_PX)) if prompt.question.text in text else None

    return picture_of
