"""Where the runs of the recipe's study come from: recorded ones, or new ones that are trained here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..params import RecipeParams
from ..paths import resolve, run_dir


def runs_of_recipe(params: RecipeParams, report: Callable[[str], None] = print) -> Path:
    """The folder or archive with the runs that the study shows; trains them first if the parameters say so.

    Args:
        params: of the study.
        report: gets a line of text as training goes on.
    """
    if not params.train:
        return resolve(params.path)
    from .grpo import Settings
    from .miniature import train_arms

    folder, settings = run_dir(params.run), Settings(steps=params.steps)
    work = {"held_out": params.held_out, "processes": params.processes}
    train_arms(folder, params.arms, params.seeds, settings, report=report, **work)
    return folder
