"""What every guess of a recorded tool run was worth, and where the rest of the ceiling went.

A guess is *helped* (it served, ready when the actor made the call), *late* (it served, the actor waited for the rest),
*useless* (executed, never needed), *harmful* (it delayed the actor or handed it the result of another call), or not
executed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from ..replay.tool_playing import NEVER, hideable_s, sequential_s
from ..replay.tool_steps import RECORDED, ToolSteps, flatten_runs
from ..stats.intervals import Estimate
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap, bootstrap_ratio
from ..tool_speculation.records import Guess, MadeCall, Step, TaskRun

VERDICTS = ("helped", "late", "useless", "harmful", "not executed")
DELAY_S = 0.010  # a longer wait for a guess that was not needed counts as harm
REASONS = ("no guess", "wrong guess", "not executed", "too late", "waiting", "saved")


def guess_ledger(runs: Iterable[TaskRun]) -> pd.DataFrame:
    """A row per guess.

    Returns:
        Columns: task_id, level, step, place, rank, ahead, tool, verdict (of VERDICTS), matched (the actor made this
        very call in the step it was meant for), head_s (from the guess to the actor's call), tool_s, hidden_s (tool
        seconds that the actor did not wait for), waited_s (those that it did), wasted_s (of an execution that nobody
        needed), delay_s (for which the actor waited in vain), tokens, and a column per score.
    """
    rows = []
    for run in runs:
        serving = _serving(run)
        by_index = {step.index: step for step in run.steps}
        for step, after in pairwise([*run.steps, None]):
            delay_s = _delay_s(run, step, after)
            for place, guess in enumerate(step.guesses):
                target = by_index.get(step.index + guess.ahead)
                calls = target.calls if target else []
                row = {"task_id": run.task_id, "level": run.level, "step": step.index, "place": place}
                row |= {"rank": guess.rank, "ahead": guess.ahead, "tool": guess.name}
                demand = target.actor_end_s if target else step.actor_end_s
                row |= _judged(
                    guess, serving.get((step.index, place), []), delay_s if place == 0 else 0.0, demand
                )
                matched = guess.canonical != "" and any(c.canonical == guess.canonical for c in calls)
                row |= {"matched": matched, "head_s": demand - guess.end_s, "tokens": guess.tokens}
                numbers = {k: v for k, v in guess.scores.items() if isinstance(v, int | float)}
                rows.append(row | numbers)
    columns = [
        "task_id",
        "level",
        "step",
        "place",
        "rank",
        "ahead",
        "tool",
        "verdict",
        "matched",
        "head_s",
        "tool_s",
    ]
    columns += ["hidden_s", "waited_s", "wasted_s", "delay_s", "tokens"]
    frame = pd.DataFrame(rows, columns=None if rows else columns)
    return frame[[*columns, *(c for c in frame.columns if c not in columns)]]


def _serving(run: TaskRun) -> dict[tuple[int, int], list[MadeCall]]:
    """(step, place) of a guess -> the calls that it served."""
    serving: dict[tuple[int, int], list[MadeCall]] = {}
    for step in run.steps:
        for call in step.calls:
            if call.guess is not None:
                place = (step.index, call.guess) if isinstance(call.guess, int) else tuple(call.guess)
                serving.setdefault(place, []).append(call)
    return serving


def _delay_s(run: TaskRun, step: Step, after: Step | None) -> float:
    """Seconds that the original's step waited, once the actor had finished, before it went on."""
    if run.settings.get("policy") != "original":
        return 0.0
    if step.calls:
        return max(0.0, step.calls[0].start_s - step.actor_end_s)
    return max(0.0, (after.actor_start_s if after else run.seconds) - step.actor_end_s)


def _judged(guess: Guess, calls: Sequence[MadeCall], delay_s: float, demand_s: float) -> dict[str, object]:
    waited = sum(call.end_s - call.start_s for call in calls)
    # an execution may serve several calls; each would have taken its seconds
    hidden = max(0.0, sum(call.tool_s for call in calls) - waited - (delay_s if calls else 0.0))
    executed = guess.tool_start_s is not None
    # one that was cancelled ran until the actor had made its call
    end_s = demand_s if guess.tool_end_s is None else guess.tool_end_s
    ran = max(0.0, end_s - guess.tool_start_s) if executed else 0.0
    false_hit = any(call.canonical != guess.canonical for call in calls)
    if not executed and not calls:
        verdict = "harmful" if delay_s > DELAY_S else "not executed"
    elif false_hit or (not calls and delay_s > DELAY_S):
        verdict = "harmful"
    elif calls:
        late = delay_s > DELAY_S or any(call.source == "awaited" for call in calls)
        verdict = "late" if late else "helped"
    else:
        verdict = "useless"
    return {
        "verdict": verdict,
        "tool_s": guess.tool_s if guess.tool_s is not None else np.nan,
        "hidden_s": hidden,
        "waited_s": waited + (delay_s if calls else 0.0),
        "wasted_s": 0.0 if calls else ran,
        "delay_s": 0.0 if calls else delay_s,
    }


def ledger_by(ledger: pd.DataFrame, by: str | list[str]) -> pd.DataFrame:
    """Sums of `guess_ledger` per tool, step, level or any of its columns.

    Returns:
        Index: `by`. Columns: guesses, one per verdict (counts), hidden_s, waited_s, wasted_s, delay_s, tokens,
        wasted_tokens.
    """
    counts = pd.crosstab([ledger[c] for c in ([by] if isinstance(by, str) else by)], ledger["verdict"])
    counts = counts.reindex(columns=list(VERDICTS), fill_value=0)
    needed = ledger["verdict"].isin(["helped", "late"])
    sums = ledger.assign(guesses=1, wasted_tokens=ledger["tokens"].mask(needed, 0)).groupby(by)
    seconds = sums[["hidden_s", "waited_s", "wasted_s", "delay_s", "tokens", "wasted_tokens"]].sum()
    result = pd.concat([sums[["guesses"]].sum(), counts, seconds], axis=1)
    return result.rename_axis(columns=None)


def hit_at_k(
    steps: ToolSteps, ks: Sequence[int] = (1, 2, 3), bootstrap: Bootstrap = DEFAULT_BOOTSTRAP
) -> pd.DataFrame:
    """How often the actor's call is among the first k guesses, and what k guesses cost.

    Returns:
        Index: k. Columns: hit_pct, low, high (intervals over tasks), name_pct (the tool alone), tokens (decoded for the
        guesses of a step, mean), n (calls).
    """
    rows = {}
    calls = steps.has_call.sum(axis=1)
    groups = steps.task
    for k in ks:
        usable = steps.has_guess & (steps.rank < k) & (steps.ahead == 0)
        same, name = (
            ((steps.alike[strategy] > 0) & usable[:, None, :]).any(axis=2).sum(axis=1)
            for strategy in ("normalised", "tool_name_only")
        )
        hit = bootstrap_ratio(same.astype(float), calls.astype(float), groups, bootstrap).times_100()
        rows[k] = {
            "hit_pct": hit.value,
            "low": hit.low,
            "high": hit.high,
            "name_pct": 100.0 * name.sum() / max(1, calls.sum()),
            "tokens": float(np.where(usable, steps.tokens, 0).sum(axis=1).mean()) if len(steps) else np.nan,
            "n": int(calls.sum()),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("k")


def argument_hits(runs: Iterable[TaskRun]) -> pd.DataFrame:
    """How often the first guess has each argument right, where it has the tool right.

    Index: tool, argument. Columns: right_pct, n.
    """
    rows = []
    for step in (step for run in runs for step in run.steps):
        guess = next((g for g in step.guesses if g.rank == 0 and g.ahead == 0), None)
        call = next((c for c in step.calls if guess is not None and c.name == guess.name), None)
        if guess is not None and call is not None:
            rows += [
                (call.name, name, 100.0 * (guess.arguments.get(name) == value))
                for name, value in call.arguments.items()
            ]
    frame = pd.DataFrame(rows, columns=["tool", "argument", "right_pct"])
    return frame.groupby(["tool", "argument"])["right_pct"].agg(right_pct="mean", n="size")


def ceiling_losses(
    runs: Sequence[TaskRun], baseline: Sequence[TaskRun] | None = None, never: Collection[str] = NEVER
) -> pd.DataFrame:
    """What a real run saved of its ceiling, and why it did not save the rest.

    Every step's hideable seconds are saved, or lost for one reason. No guess was made. The guess was wrong. It was
    right, but not executed (refused, or gated out). It was right, but decoded too late. Or it served, and the actor
    waited for the rest ("waiting"). The original's waits for nothing are negative savings. Contention is no part of
    this sum: it makes actor and tools slower themselves. It is the difference between what the run's own times say it
    saved and what a paired baseline says.

    Args:
        runs: of one arm, not a shadow pass.
        baseline: the same tasks without speculation; None: contention stays unknown.
        never: as in `ceiling`.

    Returns:
        Index: reason (REASONS, then "ceiling", and "contention" with a baseline). Columns: seconds, pct of the ceiling.
    """
    steps = flatten_runs(runs)
    call_s = steps.latencies[RECORDED][0]
    most, alone = hideable_s(steps, call_s, never), sequential_s(steps, call_s)
    lost = dict.fromkeys(REASONS, 0.0)
    flat = [(run, step, after) for run in runs for step, after in pairwise([*run.steps, None])]
    for i, (run, step, after) in enumerate(flat):
        end = max([step.actor_end_s, *(call.end_s for call in step.calls)])
        took = end - step.actor_start_s + (0.0 if step.calls else _delay_s(run, step, after))
        saved = alone[i] - took
        lost["saved"] += saved
        lost[_reason(step, never)] += most[i] - saved
    total = float(most.sum())
    lost["ceiling"] = total
    if baseline is not None:
        measured = {run.task_id: run.seconds for run in baseline}
        paired = [run for run in runs if run.task_id in measured]
        tasks = np.array([run.task_id in measured for run in runs])
        own = steps.per_task(alone) + steps.rest_s
        counterfactual = float(own[tasks].sum()) - sum(run.seconds for run in paired)
        lost["contention"] = counterfactual - sum(measured[run.task_id] - run.seconds for run in paired)
    frame = pd.DataFrame({"seconds": lost}).rename_axis("reason")
    return frame.assign(pct=100.0 * frame["seconds"] / total if total else np.nan)


def _reason(step: Step, never: Collection[str]) -> str:
    """Why a step did not save all that it could: by its first call that was carried out for the actor."""
    missed = next((c for c in step.calls if c.source == "executed" and c.name not in never), None)
    if missed is None:
        return "waiting"
    guesses = [guess for guess in step.guesses if guess.ahead == 0]
    right = [guess for guess in guesses if guess.canonical == missed.canonical != ""]
    if not guesses:
        return "no guess"
    if not right:
        return "wrong guess"
    return "not executed" if all(guess.refused is not None for guess in right) else "too late"


def ready_before_demand(ledger: pd.DataFrame) -> Estimate:
    """Share of the guesses that served which were ready when the actor made the call, with an interval over tasks."""
    served = ledger[ledger["verdict"].isin(["helped", "late"])]
    ready = served["verdict"].eq("helped").to_numpy(float)
    return bootstrap_ratio(ready, np.ones(len(ready)), served["task_id"].to_numpy(str)).times_100()


def delay_of_actor(runs: Iterable[TaskRun]) -> pd.Series:
    """Seconds by which the calls of each step began after the actor had finished: 0 but for the engine's own work.

    Index: task_id, step. Steps without calls are left out.
    """
    delays = {
        (run.task_id, step.index): step.calls[0].start_s - step.actor_end_s
        for run in runs
        for step in run.steps
        if step.calls
    }
    return pd.Series(delays, dtype=float).rename_axis(["task_id", "step"])
