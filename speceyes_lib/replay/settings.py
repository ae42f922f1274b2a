"""Gate settings: one as a value or a text, many as a frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..errors import UserError, nearest
from ..gating.separability import DEFAULT_K, DEFAULT_SLOPE

POOLED = "pooled"  # name of the rows over all samples, beside the tasks and their unweighted mean


@dataclass(frozen=True)
class Setting:
    """One way to run the gate."""

    score: str = "min"  # a name in `gating.scores.SCORES`, or one that the data has
    k: int = DEFAULT_K  # of its separability, as the slope
    slope: float = DEFAULT_SLOPE
    threshold: float = 0.98  # a draft is accepted where its score is above it
    router: str = "large"  # the model that answers Phase I, "large" or "small"; "none" drafts everything
    batch_size: int = 16  # samples per call of router and draft
    agent_batch_size: int = 1  # agents at once

    def __str__(self) -> str:
        """The text that `parse` reads; slope and agents only where they differ from the default."""
        text = f"{self.score} > {float(self.threshold)!r}, K {self.k}, router {self.router}, batch {self.batch_size}"
        text += "" if self.slope == DEFAULT_SLOPE else f", slope {float(self.slope)!r}"
        return text if self.agent_batch_size == 1 else f"{text}, agents {self.agent_batch_size}"

    @classmethod
    def parse(cls, text: str) -> Setting:
        """The setting that a text like "min > 0.98, K 32, router none, batch 8, slope 1.0, agents 16" describes.

        Score and threshold come first; the rest may be left out.

        Raises:
            UserError: names the part that cannot be read.
        """
        values: dict[str, str | int | float] = {}
        for at, part in enumerate(text.split(",")):
            try:
                if at == 0:
                    score, threshold = part.split(">")
                    values = {"score": score.strip(), "threshold": float(threshold)}
                else:
                    word, value = part.split()
                    axis, read = _WORDS[word]
                    values[axis] = read(value)
            except (ValueError, KeyError):
                raise UserError(
                    f"setting {text!r}: cannot read {part.strip()!r}; expected 'score > threshold', then any of "
                    f"{', '.join(f'{word} …' for word in _WORDS)}"
                ) from None
        return cls(**values)


# the word of a setting's text -> axis, how its value is read
_WORDS: dict[str, tuple[str, type]] = {
    "K": ("k", int),
    "router": ("router", str),
    "batch": ("batch_size", int),
    "slope": ("slope", float),
    "agents": ("agent_batch_size", int),
}
AXES = tuple(f.name for f in fields(Setting))
Settings = pd.DataFrame | Setting | Iterable[Setting]


def grid(**axes: ArrayLike) -> pd.DataFrame:
    """Every combination of the given values, a row per setting. Axes without values keep the default of `Setting`.

    Raises:
        UserError: an axis that settings do not have.
    """
    for name in axes:
        if name not in AXES:
            raise UserError(
                f"settings have no axis {name!r}{nearest(name, AXES)}; there are {', '.join(AXES)}."
            )
    values = {name: np.atleast_1d(np.asarray(axes.get(name, getattr(Setting, name)))) for name in AXES}
    return pd.DataFrame(list(product(*(v.tolist() for v in values.values()))), columns=AXES)


def frame_of(settings: Settings) -> pd.DataFrame:
    """One row per setting, numbered from 0, with all axes; raises UserError for a column that is no axis."""
    if isinstance(settings, Setting):
        settings = [settings]
    if not isinstance(settings, pd.DataFrame):
        settings = pd.DataFrame([asdict(s) for s in settings], columns=AXES)
    grid(**dict.fromkeys(settings.columns, 0))  # names the axis that does not exist
    columns = {name: settings[name] if name in settings else getattr(Setting, name) for name in AXES}
    return pd.DataFrame(columns, index=settings.index).reset_index(drop=True)
