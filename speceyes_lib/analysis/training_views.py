"""Frames behind the figures of reinforcement-learning runs: several runs over each other, by arm and seed.

An arm is a way to train (with the bonus, without it). Runs of one arm differ by their seed. Frames come from
`formats.read_training_runs`: metrics (arm, seed, step, key, value) and rollouts (a row per trajectory, with arm, seed).
"""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd

from ..stats import paired, proportions
from ..tasks.images import iou
from . import training_curves

RUN = ["arm", "seed"]
HELD_OUT_COLUMNS = [
    *("sampling", "arm", "seeds", "n", "accuracy_pct", "low_pct", "high_pct", "hard_pct"),
    *("zoom_hard_pct", "zoom_easy_pct", "box_iou", "diff_pp", "low_pp", "high_pp", "p_value"),
]
NO_ALARMS = pd.DataFrame(columns=[*RUN, "name", "key", "step", "value", "limit"])


def curve_bands(metrics: pd.DataFrame, keys: list[str], smooth: int = 1) -> pd.DataFrame:
    """Curves of arms, each the mean over its seeds.

    Args:
        metrics: arm, seed, step, key, value.
        keys: the metrics that are wanted; those that no run has are left out.
        smooth: steps of the moving mean within each run; 1: none.

    Returns:
        key (in the order of `keys`), arm, step, value (mean over seeds), low and high (the smallest and largest seed,
        which is no confidence interval), n (seeds).
    """
    wanted = metrics[metrics["key"].isin(keys) & np.isfinite(metrics["value"])].astype({"key": object})
    wanted = wanted.sort_values("step", kind="stable", ignore_index=True)
    moving = wanted.groupby([*RUN, "key"])["value"].rolling(smooth, min_periods=1).mean()
    wanted = wanted.assign(value=moving.droplevel([0, 1, 2]))
    bands = wanted.groupby(["key", "arm", "step"])["value"].agg(value="mean", low="min", high="max", n="size")
    places = {name: place for place, name in enumerate([*keys, *metrics["arm"].unique()])}
    return bands.reset_index().sort_values(
        ["key", "arm", "step"], key=lambda c: c.map(places) if c.name != "step" else c, ignore_index=True
    )


def dump_metrics(rollouts: pd.DataFrame) -> pd.DataFrame:
    """What trajectories add to the metrics of a run.

    Returns:
        arm, seed, step, key, value. Keys: dump/score (points), dump/right, dump/tool_rate, dump/format_errors,
        dump/flat_groups (rates), dump/response_chars, and where the dumps hold boxes dump/box_iou and dump/crop_px2
        (see `crops`).
    """
    parts = []
    for (arm, seed), run in _training(rollouts).groupby(RUN, sort=False):
        steps = training_curves.by_step(run)[["score", "right", "tool_rate", "format_errors"]]
        steps = steps.join(training_curves.contrasts(run)["flat"].rename("flat_groups"))
        steps["response_chars"] = run.groupby("step")["output"].agg(lambda texts: texts.str.len().mean())
        if len(boxes := crops(run)):
            steps = steps.join(boxes.groupby("step")[["box_iou", "crop_px2"]].mean())
        long = steps.add_prefix("dump/").reset_index().melt("step", var_name="key").dropna()
        parts.append(long.assign(arm=arm, seed=seed))
    columns = [*RUN, "step", "key", "value"]
    empty = pd.DataFrame(columns=columns).astype({"seed": "int64", "step": "int64", "value": "float64"})
    return pd.concat(parts, ignore_index=True)[columns] if parts else empty


def all_metrics(metrics: pd.DataFrame, rollouts: pd.DataFrame) -> pd.DataFrame:
    """The metrics of runs, and below them those of their dumps (the score only where no log holds it)."""
    dumped = dump_metrics(rollouts)
    if (metrics["key"] == "critic/score/mean").any():
        dumped = dumped[dumped["key"] != "dump/score"]
    tables = [t.astype({"key": object}) for t in (metrics, dumped) if len(t)]
    return pd.concat(tables, ignore_index=True) if tables else dumped


def crops(rollouts: pd.DataFrame) -> pd.DataFrame:
    """The first box of each trajectory, where the dump holds boxes and the place to look at.

    Returns:
        step, box_iou (overlap with the right place, 0 to 1), crop_px2 (area in pixels of the model's view).
    """
    rows = []
    if {"boxes", "teacher_box"} <= set(rollouts):
        known = rollouts[rollouts["boxes"].notna() & rollouts["teacher_box"].notna()]
        for step, boxes, right in zip(known["step"], known["boxes"], known["teacher_box"], strict=True):
            if listed := json.loads(boxes):
                x0, y0, x1, y1 = listed[0]
                rows.append((step, iou(listed[0], json.loads(right)), (x1 - x0) * (y1 - y0)))
    return pd.DataFrame(rows, columns=["step", "box_iou", "crop_px2"])


def score_parts(rollouts: pd.DataFrame) -> pd.DataFrame:
    """`training_curves.by_step` of every arm, over all its seeds: arm, step and its columns, a row each."""
    runs = _training(rollouts).groupby("arm", sort=False)
    parts = [training_curves.by_step(run).reset_index().assign(arm=arm) for arm, run in runs]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["arm", "step"])


def phase_path(rollouts: pd.DataFrame, window: int = 4) -> pd.DataFrame:
    """Where an arm stands: how often it uses its tool, and what the tool goes with.

    Args:
        rollouts: trajectories.
        window: steps that are counted together.

    Returns:
        arm, step (the last of the window), n, tool_rate, difference = P(right | tool) - P(right | no tool) with low and
        high (Newcombe's 95 % interval from the two of Wilson); nan where one of the two never occurs.
    """
    training = _training(rollouts)
    windows = training.assign(step=(training["step"] - 1) // window * window + window)
    last = training.groupby("arm")["step"].max()
    table = score_parts(windows)
    if not len(table):
        return pd.DataFrame(columns=["arm", "step", "n", "tool_rate", "difference", "low", "high"])
    table["step"] = np.minimum(table["step"], table["arm"].map(last))
    table = table.reindex(columns=[*table, *(f"{p}{e}" for p in ("right_with_tool", "right_without_tool")
                                             for e in ("", "_low", "_high") if f"{p}{e}" not in table)])  # fmt: skip
    with_tool, without = table["right_with_tool"], table["right_without_tool"]
    difference = with_tool - without
    down = np.hypot(with_tool - table["right_with_tool_low"], table["right_without_tool_high"] - without)
    up = np.hypot(table["right_with_tool_high"] - with_tool, without - table["right_without_tool_low"])
    table = table.assign(difference=difference, low=difference - down, high=difference + up)
    return table[["arm", "step", "n", "tool_rate", "difference", "low", "high"]]


def learning_signal(rollouts: pd.DataFrame) -> pd.DataFrame:
    """`training_curves.contrasts` of every arm, over all its seeds: arm, step and its columns, a row each."""
    parts = []
    for arm, run in _training(rollouts).groupby("arm", sort=False):
        # groups of different seeds are different groups
        apart = run.assign(group=run.groupby(["seed", "step", "group"]).ngroup().where(run["group"].notna()))
        parts.append(training_curves.contrasts(apart).reset_index().assign(arm=arm))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["arm", "step"])


def alarm_table(metrics: pd.DataFrame, rollouts: pd.DataFrame, window: int = 4) -> pd.DataFrame:
    """Early warnings of every run: arm, seed, name, key, step, value, limit. See `training_curves.ALARMS`."""
    rows = []
    for run, part in metrics.groupby(RUN, sort=False):
        its_own = rollouts[(rollouts[RUN] == list(run)).all(axis=1)] if len(rollouts) else None
        for alarm in training_curves.alarms(part, its_own, window):
            key = training_curves.ALARMS[alarm.name][0]
            rows.append(dict(zip(RUN, run, strict=True)) | {"key": key} | asdict(alarm))
    return pd.DataFrame(rows, columns=list(NO_ALARMS)) if rows else NO_ALARMS


def group_ledger(rollouts: pd.DataFrame, step: int, divide_by_std: bool = True) -> pd.DataFrame:
    """The trajectories of a step with their advantages, group by group.

    Args:
        rollouts: trajectories of one run.
        step: of the run.
        divide_by_std: as verl; False: as Dr. GRPO.

    Returns:
        The rows of the step that have a group, with the columns of `training_curves.advantages` and used_tool (the tool
        carried out a call), ordered by the mean score of their group, then by score.
    """
    part = rollouts[(rollouts["step"] == step) & rollouts["group"].notna()]
    table = training_curves.advantages(part, divide_by_std)
    table = table.assign(used_tool=table["replies"] > table["failed_replies"])
    return table.sort_values(["group_mean", "group", "score"], kind="stable", ignore_index=True)


def bounds_by_step(metrics: pd.DataFrame) -> pd.DataFrame:
    """Accuracies that mean scores allow, for runs without dumps: arm, seed, step, low, high. See `accuracy_bounds`."""
    wide = metrics[metrics["step"] > 0].pivot_table(
        index=[*RUN, "step"], columns="key", values="value", observed=True
    )
    if "critic/score/mean" not in wide:
        return pd.DataFrame(columns=[*RUN, "step", "low", "high"])
    scores = wide["critic/score/mean"].dropna()
    turns = wide["num_turns/mean"] if "num_turns/mean" in wide else pd.Series(np.nan, wide.index)
    bounds = [
        training_curves.accuracy_bounds(score, None if np.isnan(n) else n)
        for score, n in zip(scores, turns[scores.index], strict=True)
    ]
    return pd.DataFrame(bounds, scores.index, columns=["low", "high"]).reset_index()


def reward_variants(rollouts: pd.DataFrame) -> pd.DataFrame:
    """Mean points of every arm under each variant of the reward, and what the bonus was paid for.

    Returns:
        A row per arm: arm, n, score (as recorded), recipe, original, strict (`training_curves.rescored`), paid
        (bonuses), without_crop (of them, those without a crop), zero_pct (scores of exactly 0: a wrong answer, or a
        failed judge).
    """
    rows = []
    for arm, run in _training(rollouts).groupby("arm", sort=False):
        audit = training_curves.bonus_audit(run)
        row = {"arm": arm, "n": len(run), "score": run["score"].mean()}
        row |= training_curves.rescored(run).mean().to_dict() | {"paid": int(audit["paid"].sum())}
        row["without_crop"] = int(audit[["without_a_call", "failed_only"]].sum().sum())
        rows.append(row | {"zero_pct": 100 * (run["score"] == 0).mean()})
    return pd.DataFrame(rows)


def held_out_results(held_out: pd.DataFrame, start: str = "start") -> pd.DataFrame:
    """What agents do on held-out questions before and after training.

    Args:
        held_out: arm, seed, sampling ("greedy" or "sampled"), sample, hard, right, tool, box_iou.
        start: the arm that was not trained.

    Returns:
        A row per sampling and arm, over its seeds: sampling, arm, seeds, n, accuracy_pct with low_pct and high_pct
        (questions are drawn, with their seeds), hard_pct (accuracy on small targets), zoom_hard_pct, zoom_easy_pct,
        box_iou, and against the start on the same questions diff_pp with low_pp and high_pp, p_value (McNemar's, which
        takes seeds for independent; nan for the start).
    """
    rows = []
    for (sampling, arm), part in held_out.groupby(["sampling", "arm"], sort=False):
        hard = part["hard"].astype(bool)
        right, tool = part["right"].astype(bool), part["tool"].astype(bool)
        share = proportions.accuracy(right, part["sample"])
        row = {"sampling": sampling, "arm": arm, "seeds": part["seed"].nunique(), "n": len(part)}
        row |= {"accuracy_pct": share.value, "low_pct": share.low, "high_pct": share.high}
        row |= {"hard_pct": 100 * right[hard].mean(), "zoom_hard_pct": 100 * tool[hard].mean()}
        row |= {"zoom_easy_pct": 100 * tool[~hard].mean(), "box_iou": part["box_iou"].mean()}
        before = held_out[(held_out["arm"] == start) & (held_out["sampling"] == sampling)]
        both = part.merge(before[["sample", "right"]], on="sample", suffixes=("", "_before"))
        if arm != start and len(both):
            test = paired.paired_test(
                both["right"].astype(bool), both["right_before"].astype(bool), both["sample"]
            )
            row |= {key: test.as_dict()[key] for key in ("diff_pp", "low_pp", "high_pp", "p_value")}
        rows.append(row)
    return pd.DataFrame(rows, columns=HELD_OUT_COLUMNS)


def _training(rollouts: pd.DataFrame) -> pd.DataFrame:
    """The trajectories that were trained on."""
    return rollouts[rollouts["set"] == "train"] if len(rollouts) else rollouts.assign(arm=[], seed=[])
