"""Arms of tool runs beside each other. Print `audit_arms` and `audit_findings` before any comparison.

Arms are compared task by task. A task that a lost connection ended in one arm is left out of both, and counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..errors import UserError
from ..judging.gaia import PROTOCOLS, is_right
from ..replay.tool_playing import ToolSetting
from ..replay.tool_speculation import replay_task_times
from ..replay.tool_steps import flatten_runs
from ..stats.intervals import Estimate
from ..stats.paired import PairedTest, paired_test, sign_flip_test, speedup
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap
from ..tool_speculation.records import TaskRun

Arms = Mapping[str, Sequence[TaskRun]]
CONNECTION = re.compile(
    r"connect|time[d -]*out|unreachable|rate.?limit|\b(?:429|502|503|504)\b|reset by peer|name resolution",
    re.IGNORECASE,
)
MANY_POINTS = 5.0  # percentage points by which error rates of a tool may differ between arms
VIABLE_S = 10.0  # from which the original's script calls a tool worth speculating


def run_frame(runs: Iterable[TaskRun]) -> pd.DataFrame:
    """A row per task.

    Returns:
        Index: task_id. Columns: level, seconds, steps, calls, hits, guesses (executed), error, lost_connection, answer,
        truth, and right by each protocol of `judging.gaia` (right_original, right_official; missing where the truth is
        withheld).
    """
    rows = {}
    for run in runs:
        calls = [call for step in run.steps for call in step.calls]
        executed = sum(g.tool_start_s is not None for step in run.steps for g in step.guesses)
        rows[run.task_id] = {
            "level": run.level,
            "seconds": run.seconds,
            "steps": len(run.steps),
            "calls": len(calls),
            "hits": sum(call.source != "executed" for call in calls),
            "guesses": executed,
            "error": run.error or "",
            "lost_connection": bool(run.error and CONNECTION.search(run.error)),
            "answer": run.answer,
            "truth": run.truth,
            **{f"right_{name}": is_right(run.truth, run.answer, name) for name in PROTOCOLS},
        }
    columns = [
        "level",
        "seconds",
        "steps",
        "calls",
        "hits",
        "guesses",
        "error",
        "lost_connection",
        "answer",
        "truth",
    ]
    columns += [f"right_{name}" for name in PROTOCOLS]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("task_id")


# ------------------------------------------------------------------ conditions


def audit_arms(arms: Arms) -> pd.DataFrame:
    """The conditions of each arm.

    Returns:
        Index: arm. Columns: tasks, missing (tasks that another arm has), repeated (task_ids that occur twice), errors,
        lost_connections, tool_errors, tool_calls, tool_error_pct, speculator_errors, actor and speculator (models,
        joined by "; " where there are several), first and last (UTC of the earliest and latest start).
    """
    every = {run.task_id for runs in arms.values() for run in runs}
    rows = {}
    for arm, runs in arms.items():
        ids = {run.task_id for run in runs}
        calls = [call for run in runs for step in run.steps for call in step.calls]
        started = sorted(run.started for run in runs if run.started)
        failed = sum(call.error is not None for call in calls)
        rows[arm] = {
            "tasks": len(ids),
            "missing": len(every - ids),
            "repeated": len(runs) - len(ids),
            "errors": sum(run.error is not None for run in runs),
            "lost_connections": sum(bool(run.error and CONNECTION.search(run.error)) for run in runs),
            "tool_errors": failed,
            "tool_calls": len(calls),
            "tool_error_pct": 100.0 * failed / len(calls) if calls else np.nan,
            "speculator_errors": sum(step.speculator_error is not None for run in runs for step in run.steps),
            **{
                role: "; ".join(sorted({str(run.models.get(role)) for run in runs if run.models.get(role)}))
                for role in ("actor", "speculator")
            },
            "first": started[0] if started else "",
            "last": started[-1] if started else "",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def tool_errors(arms: Arms) -> pd.DataFrame:
    """Share of failed calls per tool and arm, in percent. Index: tool. Columns: the arms, and n of the rarest arm."""
    rows = [
        (arm, call.name, 100.0 * (call.error is not None))
        for arm, runs in arms.items()
        for run in runs
        for step in run.steps
        for call in step.calls
    ]
    frame = pd.DataFrame(rows, columns=["arm", "tool", "error_pct"])
    table = frame.pivot_table(index="tool", columns="arm", values="error_pct", aggfunc="mean").reindex(
        columns=list(arms)
    )
    counts = pd.crosstab(frame["tool"], frame["arm"]).reindex(columns=list(arms), fill_value=0)
    return table.assign(n=counts.min(axis=1)).rename_axis(columns=None)


def audit_findings(arms: Arms) -> list[str]:
    """What makes the arms incomparable, one sentence each; empty where nothing was found."""
    audit, findings = audit_arms(arms), []
    for arm, row in audit.iterrows():
        if row["missing"]:
            findings.append(f"{arm}: {row['missing']} tasks of other arms are missing")
        if row["repeated"]:
            findings.append(f"{arm}: {row['repeated']} tasks occur twice")
        if row["lost_connections"]:
            findings.append(
                f"{arm}: {row['lost_connections']} tasks ended with a lost connection; they are left out"
            )
        if row["errors"] > row["lost_connections"]:
            findings.append(
                f"{arm}: {row['errors'] - row['lost_connections']} tasks ended with another error"
            )
        if row["speculator_errors"]:
            findings.append(f"{arm}: the speculator failed in {row['speculator_errors']} steps")
        if ";" in row["actor"]:
            findings.append(f"{arm}: several actors ({row['actor']})")
    actors = {actor for actor in audit["actor"] if actor}
    if len(actors) > 1:
        findings.append(f"the actors differ: {', '.join(sorted(actors))}")
    days = {day for column in ("first", "last") for day in audit[column].str[:10] if day}
    if len(days) > 1:
        findings.append(f"the arms ran on different days, {min(days)} to {max(days)}")
    for tool, row in tool_errors(arms).iterrows():
        rates = row[list(arms)].dropna()
        if len(rates) > 1 and rates.max() - rates.min() > MANY_POINTS:
            rate = ", ".join(f"{arm} {value:.0f} %" for arm, value in rates.items())
            findings.append(f"{tool} fails unequally often: {rate}")
    return findings


# ------------------------------------------------------------------ comparison


@dataclass(frozen=True)
class ArmComparison:
    """One arm against the baseline, on the tasks that both have.

    Attributes:
        n: tasks compared.
        left_out: tasks of both arms that a lost connection ended in one.
        speedup: total seconds of the baseline over those of the arm, paired by task.
        p_seconds: of the sign-flip test of the differences in seconds.
        median_ratio: median over tasks of baseline seconds over the arm's.
        accuracy: difference in accuracy by protocol, arm minus baseline.
        same_messages: tasks whose conversations are equal, byte for byte.
        same_answers: tasks whose answers are equal.
        steps: mean steps of the arm and of the baseline.
        hits: calls of the arm that a guess served, and all its calls.
    """

    n: int
    left_out: int
    speedup: Estimate
    p_seconds: float
    median_ratio: float
    accuracy: dict[str, PairedTest]
    same_messages: int
    same_answers: int
    steps: tuple[float, float]
    hits: tuple[int, int]

    def as_row(self) -> dict[str, Any]:
        """The numbers as one row of a frame."""
        row = {"n": self.n, "left_out": self.left_out, "speedup": self.speedup.value, "low": self.speedup.low}
        row |= {"high": self.speedup.high, "p_seconds": self.p_seconds, "median_ratio": self.median_ratio}
        for name, test in self.accuracy.items():
            row |= {f"{name}_pp": test.difference.value, f"{name}_p": test.p_value}
        row |= {"same_messages": self.same_messages, "same_answers": self.same_answers}
        row |= {
            "steps": self.steps[0],
            "steps_baseline": self.steps[1],
            "hits": self.hits[0],
            "calls": self.hits[1],
        }
        return row


def compare_arms(
    arm: Sequence[TaskRun], baseline: Sequence[TaskRun], bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> ArmComparison:
    """An arm against its baseline, paired by task.

    A task that failed for another reason than a lost connection stays: its seconds count, and it is wrong.

    Args:
        arm: runs.
        baseline: runs of the same tasks without speculation.
        bootstrap: of tasks.

    Raises:
        UserError: the arms have no task in common.
    """
    own, base = ({run.task_id: run for run in runs} for runs in (arm, baseline))
    both = [task for task in own if task in base]
    if not both:
        raise UserError(
            "The arms have no task in common, so they cannot be compared; give runs of the same tasks."
        )
    frames = [run_frame(runs[task] for task in both) for runs in (own, base)]
    kept = ~(frames[0]["lost_connection"] | frames[1]["lost_connection"])
    a, b = (frame[kept] for frame in frames)
    seconds, base_seconds = a["seconds"].to_numpy(float), b["seconds"].to_numpy(float)
    accuracy = {}
    for name in PROTOCOLS:
        column = f"right_{name}"
        scored = a[column].notna() & b[column].notna()
        rights = (frame.loc[scored, column].to_numpy(bool) for frame in (a, b))
        accuracy[name] = paired_test(*rights, bootstrap=bootstrap)
    pairs = [(own[task], base[task]) for task in a.index]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = base_seconds / seconds
    return ArmComparison(
        n=len(a),
        left_out=int((~kept).sum()),
        speedup=speedup(base_seconds, seconds, bootstrap=bootstrap),
        p_seconds=sign_flip_test(base_seconds - seconds, seed=bootstrap.seed),
        median_ratio=float(np.median(ratios)) if len(ratios) else np.nan,
        accuracy=accuracy,
        same_messages=sum(run.messages == other.messages for run, other in pairs),
        same_answers=sum(run.answer == other.answer for run, other in pairs),
        steps=(float(a["steps"].mean()), float(b["steps"].mean())),
        hits=(int(a["hits"].sum()), int(a["calls"].sum())),
    )


def compare_all(
    arms: Arms, baseline: str = "baseline", bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> pd.DataFrame:
    """Every other arm against the baseline: a row of `ArmComparison.as_row` per arm."""
    rows = {
        arm: compare_arms(runs, arms[baseline], bootstrap).as_row()
        for arm, runs in arms.items()
        if arm != baseline
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def replay_fidelity_of_tools(replayed: pd.DataFrame, real: Sequence[TaskRun]) -> pd.DataFrame:
    """Replayed times and hits beside those of a real run, task by task.

    Args:
        replayed: `replay.replay_task_times` of a shadow pass under the real run's setting.
        real: the real run.

    Returns:
        Index: task_id. Columns: seconds_replayed, seconds_real, hits_replayed, hits_real, off_pct (of real seconds).
    """
    measured = run_frame(real)[["seconds", "hits"]].add_suffix("_real")
    frame = replayed[["seconds", "hits"]].add_suffix("_replayed").join(measured, how="inner")
    frame = frame.dropna(subset=["seconds_replayed"])
    off = 100.0 * (frame["seconds_replayed"] - frame["seconds_real"]) / frame["seconds_real"]
    return frame.assign(off_pct=off)


def replayed_arms(shadow: Sequence[TaskRun], served: Arms) -> pd.DataFrame:
    """A shadow pass replayed as other arms, beside what these did on the same tasks.

    Args:
        shadow: runs of the shadow pass.
        served: arms that were really run, by name.

    Returns:
        Index: arm. Columns: tasks, hits_replayed, hits_real, seconds_replayed, seconds_real (sums), median_off_pct (of
        the tasks, without sign), note (why an arm or some tasks cannot be replayed).
    """
    steps, rows = flatten_runs(shadow), {}
    for arm, runs in served.items():
        try:
            setting = ToolSetting.of(runs[0].settings)
            frame = replay_fidelity_of_tools(replay_task_times(steps, setting), runs)
        except UserError as error:
            rows[arm] = {"tasks": 0, "note": str(error)}
            continue
        sums = frame[["hits_replayed", "hits_real", "seconds_replayed", "seconds_real"]].sum()
        left = len({run.task_id for run in shadow} & {run.task_id for run in runs}) - len(frame)
        note = f"{left} tasks got a result of another call; they cannot be replayed" if left else ""
        rows[arm] = {
            "tasks": len(frame),
            **sums,
            "median_off_pct": frame["off_pct"].abs().median(),
            "note": note,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


def tool_latency(runs: Iterable[TaskRun], protocol: str = "official") -> pd.DataFrame:
    """Seconds of each tool, as the original's script shows them.

    Returns:
        Index: tool, right (of the run's answer; missing where the truth is withheld). Columns: count, total_s, mean_s,
        min_s, max_s, p50_s, p90_s, p99_s, model_pct (total as share of the actor's seconds in these runs), viable
        (mean of at least 10 s, the original's rule of thumb).
    """
    rows, model_s = [], {}
    for run in runs:
        right = is_right(run.truth, run.answer, protocol)
        model_s[right] = model_s.get(right, 0.0) + sum(s.actor_end_s - s.actor_start_s for s in run.steps)
        rows += [(call.name, right, call.tool_s) for step in run.steps for call in step.calls]
    frame = pd.DataFrame(rows, columns=["tool", "right", "s"])
    grouped = frame.groupby(["tool", "right"], dropna=False)["s"]
    table = grouped.agg(count="size", total_s="sum", mean_s="mean", min_s="min", max_s="max")
    for share in (50, 90, 99):
        table[f"p{share}_s"] = grouped.quantile(share / 100)
    model = np.array(
        [model_s[right if isinstance(right, bool | np.bool_) else None] for _, right in table.index], float
    )
    return table.assign(model_pct=100.0 * table["total_s"] / model, viable=table["mean_s"] >= VIABLE_S)
