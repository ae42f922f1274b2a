"""What a reinforcement-learning run was worth: curves by step, what drove them, and early warnings.

Frames come from `formats.read_training`: metrics (step, key, value) and trajectories (a row each). Points are points of
the reward, rates are fractions.

Source: arXiv:2505.14362 (DeepEyes), arXiv:2402.03300 (GRPO), arXiv:2503.14476 (DAPO).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..judging.rewards import RECIPE_WEIGHTS, VARIANTS, reward
from ..stats import proportions

EPSILON = 1e-6  # verl adds it to the standard deviation of a group


def executed_calls(turns: pd.Series) -> pd.Series:
    """Tool calls that were carried out, from verl's `num_turns`, which counts both sides: turns / 2 - 1."""
    return turns / 2 - 1


def by_step(rollouts: pd.DataFrame) -> pd.DataFrame:
    """What the trajectories of each step got, and how the score is made up.

    Returns:
        Index: step. n; score (mean); accuracy, format and tool (mean points of each part; they sum to it if every
        score is one of the recipe's six); right, format_errors, tool_rate (rates; a call counts if the tool carried it
        out); right_with_tool and right_without_tool, each with its interval and n.
    """
    tool = rollouts["replies"] > rollouts["failed_replies"]
    parts = rollouts.assign(
        accuracy=RECIPE_WEIGHTS.accuracy * rollouts["right"],
        format=RECIPE_WEIGHTS.format * rollouts["format_error"],
        tool=RECIPE_WEIGHTS.tool * rollouts["tool"],
        tool_rate=tool,
    ).groupby("step")
    table = parts[["score", "accuracy", "format", "tool", "right", "format_error", "tool_rate"]].mean()
    table = table.rename(columns={"format_error": "format_errors"})
    table.insert(0, "n", parts.size())
    for name, among in {"right_with_tool": tool, "right_without_tool": ~tool}.items():
        for step, part in rollouts[among & rollouts["right"].notna()].groupby("step"):
            share = proportions.accuracy(part["right"] == 1)
            ends = {"": share.value / 100, "_low": share.low / 100, "_high": share.high / 100, "_n": share.n}
            for end, value in ends.items():
                table.loc[step, name + end] = value
    return table


def advantages(rollouts: pd.DataFrame, divide_by_std: bool = True) -> pd.DataFrame:
    """The trajectories with their group's numbers and their advantage.

    Args:
        rollouts: with step, set, group and score.
        divide_by_std: as verl; False: as Dr. GRPO.

    Returns:
        The frame with group_size, group_mean, group_std (of n - 1), flat (all scores of the group are equal, so that it
        teaches nothing) and advantage. A group of one has its score as advantage, as in verl. Rows without a group have
        no advantage.
    """
    keys = ["set", "step", "group"]
    groups = rollouts.groupby(keys)["score"]
    size, mean, std = (groups.transform(what) for what in ("size", "mean", "std"))
    alone = size == 1
    advantage = (rollouts["score"] - mean) / ((std + EPSILON) if divide_by_std else 1.0)
    return rollouts.assign(
        group_size=size,
        group_mean=mean,
        group_std=std,
        flat=(std < 1e-9).where(size > 1).astype("boolean"),
        advantage=advantage.mask(alone, rollouts["score"]).where(rollouts["group"].notna()),
    )


def contrasts(rollouts: pd.DataFrame) -> pd.DataFrame:
    """Which part of the reward drives learning: the variance within groups, by part and step.

    The score is a sum of three parts, so the variance within a group is the sum of the covariances of each part with
    the score.

    Returns:
        Index: step. accuracy, format, tool (shares of the variance within groups, which sum to 1); flat (share of the
        groups without any).
    """
    table = advantages(rollouts[rollouts["right"].notna()])
    table = table[table["group_size"] > 1]
    off = table["score"] - table["group_mean"]
    shares = {}
    for name, column in {"accuracy": "right", "format": "format_error", "tool": "tool"}.items():
        points = getattr(RECIPE_WEIGHTS, name) * table[column]
        mean = points.groupby([table["set"], table["step"], table["group"]]).transform("mean")
        shares[name] = off * (points - mean)
    sums = pd.DataFrame(shares).groupby(table["step"]).sum()
    result = sums.div(sums.sum(axis=1).where(lambda total: total > 1e-12), axis=0)
    first = table.drop_duplicates(["set", "step", "group"])
    return result.assign(flat=first.groupby("step")["flat"].mean().astype("float64"))


def rescored(rollouts: pd.DataFrame) -> pd.DataFrame:
    """The same trajectories under every variant of the reward, with the verdicts that they got.

    Returns:
        A column per variant of `rewards.VARIANTS`: the score, nan where the verdict is not known.
    """
    crops = rollouts["replies"] - rollouts["failed_replies"]
    rows = list(zip(rollouts["output"], rollouts["right"] == 1, crops, strict=True))
    scores = {
        variant: [
            reward(text, lambda _, r=right: r, variant=variant, crops=n).score for text, right, n in rows
        ]
        for variant in VARIANTS
    }
    return pd.DataFrame(scores, rollouts.index, dtype="float64").where(rollouts["right"].notna())


def bonus_audit(rollouts: pd.DataFrame) -> pd.DataFrame:
    """Bonuses that were paid without a crop: index step; paid, without_a_call, failed_only (counts), share."""
    paid = rollouts[rollouts["tool"] == 1]
    counts = pd.DataFrame(
        {
            "paid": 1,
            "without_a_call": (paid["replies"] == 0).astype(int),
            "failed_only": ((paid["replies"] > 0) & (paid["replies"] == paid["failed_replies"])).astype(int),
        },
        index=paid.index,
    )
    table = counts.groupby(paid["step"]).sum()
    return table.assign(share=(table["without_a_call"] + table["failed_only"]) / table["paid"])


def accuracy_bounds(score: float, turns: float | None = None) -> tuple[float, float]:
    """The accuracies that a mean score allows where no trajectories were kept and format errors are rare.

    Args:
        score: mean points of a step.
        turns: mean of verl's `num_turns`, where it is known.
    """
    whole, bonus = RECIPE_WEIGHTS.accuracy, RECIPE_WEIGHTS.tool
    low = score / (whole + bonus)
    if turns is not None:
        low = max(low, (score - bonus * min(1.0, max(0.0, turns / 2 - 1))) / whole)
    return float(np.clip(low, 0, 1)), float(np.clip(score / whole, 0, 1))


# ------------------------------------------------------------------------------------------------ early warnings


@dataclass(frozen=True)
class Alarm:
    """A sign of collapse: its name, the first step at which it holds, the value there and its limit."""

    name: str
    step: int
    value: float
    limit: float


def alarms(metrics: pd.DataFrame, rollouts: pd.DataFrame | None = None, window: int = 4) -> list[Alarm]:
    """Signs that a run goes wrong, each at the first step at which it holds. `ALARMS` lists them with their limits.

    Args:
        metrics: step, key, value.
        rollouts: trajectories, where they were dumped.
        window: steps that a mean is taken over. It is compared with the first step, which no update has changed
            yet: a run that collapses within its first window would hide in the mean of that window.
    """
    wide = metrics[metrics["step"] > 0].pivot_table(index="step", columns="key", values="value", dropna=False)
    if "num_turns/mean" not in wide and "tool_calls/mean" in wide:  # of the original repository
        wide["num_turns/mean"] = 2 * (wide["tool_calls/mean"] + 1)
    if rollouts is not None and len(trained := rollouts[rollouts["set"] == "train"]):
        steps = by_step(trained)
        wide = wide.join(steps[["format_errors", "tool_rate"]].add_prefix("dump/"), how="outer")
        wide = wide.join(contrasts(trained)["flat"].rename("dump/flat"), how="outer")
        wide["dump/all_zero"] = (trained["score"] == 0).groupby(trained["step"]).mean()
    fired = []
    for name, (key, is_alarm, limit_of) in ALARMS.items():
        if key not in wide or wide[key].notna().sum() < window:
            continue
        means = wide[key].dropna().rolling(window).mean().dropna()
        limit = limit_of(wide[key].dropna().iloc[0])
        fires = means[is_alarm(means, limit)]
        if len(fires):
            fired.append(Alarm(name, int(fires.index[0]), float(fires.iloc[0]), float(limit)))
    return sorted(fired, key=lambda alarm: alarm.step)


def _below(means: pd.Series, limit: float) -> pd.Series:
    return means < limit


def _above(means: pd.Series, limit: float) -> pd.Series:
    return means > limit


Rule = tuple[str, Callable[[pd.Series, float], pd.Series], Callable[[float], float]]
# name -> key, when the mean over a window fires, and its limit, given the value of the first step
ALARMS: dict[str, Rule] = {
    "entropy collapses": ("actor/entropy", _below, lambda start: 0.2 * start),
    "entropy rises": ("actor/entropy", _above, lambda start: 1.5 * start),
    "tool use is gone": ("num_turns/mean", _below, lambda start: 2.1),
    "most groups are flat": ("dump/flat", _above, lambda start: 0.6),
    "the judge is down": ("dump/all_zero", _above, lambda start: 0.99),
    "scores are all zero": ("critic/score/max", _below, lambda start: 1e-9),
    "format errors rise": ("dump/format_errors", _above, lambda start: max(0.15, 2 * start)),
    "responses are cut off": ("response_length/clip_ratio", _above, lambda start: 0.05),
    "gradients explode": ("actor/grad_norm", _above, lambda start: 5 * start),
}
