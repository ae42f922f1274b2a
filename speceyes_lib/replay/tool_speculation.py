"""What tool speculation could save at most, and what any setting of it would have done on recorded steps.

With G seconds until the actor has made its call, T seconds of the tool and g seconds until the guess is decoded, a step
takes G + T without speculation, max(G, g + T) with a guess that comes true, and never less than max(G, T).

Lossless strategies (`matching.STRATEGIES`) hand the actor what it would have read anyway, so the recorded steps stay
valid and the replayed decisions are exact. Other strategies may serve the result of another call. What the actor would
have done with it is not recorded: such a task ends at that step, and the setting has no times.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import UserError
from ..stats.intervals import LEVEL, Estimate
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap, bootstrap_ratio, linearised_ratio
from .tool_playing import (
    AWAITED,
    CACHED,
    EXECUTED,
    NEVER,
    SOURCES,
    USED,
    Played,
    ToolSetting,
    hideable_s,
    known,
    play,
    sequential_s,
)
from .tool_steps import RECORDED, ToolSteps

# ------------------------------------------------------------------ the most there is to gain


@dataclass(frozen=True)
class Ceiling:
    """The most that speculation over one step can save.

    Attributes:
        tool_share: of the tools in the time without speculation, in percent.
        one_step: sum of G + T over sum of max(G, T); no more than 2.
        by_share: 1 / (1 - tool share), what hiding every tool would give.
        saved_s: seconds without speculation minus those at the ceiling.
        sequential_s: seconds without speculation.
    """

    tool_share: Estimate
    one_step: Estimate
    by_share: Estimate
    saved_s: float
    sequential_s: float


def ceiling(
    steps: ToolSteps,
    latency: str = RECORDED,
    tool_scale: float = 1.0,
    never: Collection[str] = NEVER,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> Ceiling:
    """The ceiling of recorded steps, with intervals over tasks. Look at it before a run is spent.

    Args:
        steps: of one arm.
        latency: as in `ToolSetting`.
        tool_scale: as in `ToolSetting`.
        never: tools that may not be carried out in advance, so that nothing of them can be hidden.
        bootstrap: level, draws and seed; whole tasks are drawn.
    """
    known("latency", latency, steps.latencies)
    call_s = tool_scale * steps.latencies[latency][0]
    sequential = steps.per_task(sequential_s(steps, call_s))
    tools = steps.per_task(call_s.sum(axis=1))
    best = sequential - steps.per_task(hideable_s(steps, call_s, never))
    share = bootstrap_ratio(tools, sequential, bootstrap=bootstrap)
    bound = replace(
        share, value=1 / (1 - share.value), low=1 / (1 - share.low), high=1 / (1 - share.high), unit="x"
    )
    return Ceiling(
        tool_share=share.times_100(),
        one_step=replace(bootstrap_ratio(sequential, best, bootstrap=bootstrap), unit="x"),
        by_share=bound,
        saved_s=float(sequential.sum() - best.sum()),
        sequential_s=float(sequential.sum()),
    )


def client_bound(actor_s: float, guess_s: float, tool_s: float, match_rate: float) -> float:
    """Speedup of a step with these means if a share of the guesses comes true: (G+T) / (p max(G, g+T) + (1-p)(G+T)).

    Source: Speculative Tool Calls (arXiv:2512.15834), the bound for a client.
    """
    sequential = actor_s + tool_s
    return sequential / (match_rate * max(actor_s, guess_s + tool_s) + (1 - match_rate) * sequential)


# ------------------------------------------------------------------ many settings


def replay_tools(
    steps: ToolSteps,
    settings: ToolSetting | Iterable[ToolSetting],
    never: Collection[str] = NEVER,
    level: float = LEVEL,
) -> pd.DataFrame:
    """What each setting would have done, a row per setting.

    Args:
        steps: of one arm, best a shadow pass.
        settings: one or many.
        never: as in `ceiling`.
        level: of the intervals of the speedup, over tasks.

    Returns:
        Columns: those of `ToolSetting`; status ("ok", "diverges") and reason (task, step and calls of the first false
        hit); diverging_tasks; tasks, steps, calls; hits, of them used, awaited and cached; hit_pct of the calls;
        ready_pct of the hits that were there at once; executed (guesses), wasted (of them not needed), wasted_s,
        waste_pct of the sequential seconds, wasted_tokens, amplification (calls executed per call needed), estimated
        (guesses executed whose seconds were never measured); sequential_s, seconds and saved_s of all tasks; speedup,
        low and high; ceiling_pct, the share of the ceiling's saving. A setting that diverges has no seconds, and its
        counts are those of the steps before the first false hit of each task.
    """
    settings = [settings] if isinstance(settings, ToolSetting) else list(settings)
    ceilings: dict[tuple[str, float], float] = {}
    rows = []
    for setting in settings:
        played = play(steps, setting)
        key = (setting.latency, setting.tool_scale)
        if key not in ceilings:
            ceilings[key] = float(hideable_s(steps, played.call_s, never).sum())
        rows.append(asdict(setting) | _summary(steps, played, ceilings[key], level))
    return pd.DataFrame(rows)


def over_tool_share(
    steps: ToolSteps,
    settings: Mapping[str, ToolSetting],
    shares: Sequence[float] = (0.05, 0.2, 0.36, 0.5, 0.6, 0.75),
    never: Collection[str] = NEVER,
) -> pd.DataFrame:
    """Every setting at other tool times: all recorded ones by one factor, so that the tools have a given share.

    Args:
        steps: of one arm.
        settings: name -> setting; its `tool_scale` is replaced.
        shares: of the tools in the time without speculation, fractions.
        never: as in `ceiling`.

    Returns:
        Columns: setting (its name), tool_share_pct, tool_scale, speedup, low, high, ceiling (of one step).

    Raises:
        UserError: the recorded tools took no time.
    """
    actor_s, tools_s = float(steps.actor_s.sum()), float(steps.latencies[RECORDED][0].sum())
    if not tools_s:
        raise UserError("The recorded tools took no time, so no factor gives them a share.")
    rows = []
    for share in shares:
        scale = share / (1 - share) * actor_s / tools_s
        scaled = [replace(setting, tool_scale=scale) for setting in settings.values()]
        best = ceiling(steps, tool_scale=scale, never=never, bootstrap=Bootstrap(draws=2)).one_step.value
        replayed = replay_tools(steps, scaled, never)[["speedup", "low", "high"]]
        place = {"tool_share_pct": 100.0 * share, "tool_scale": scale}
        rows.append(replayed.assign(setting=list(settings), **place, ceiling=best))
    columns = ["setting", "tool_share_pct", "tool_scale", "speedup", "low", "high", "ceiling"]
    return pd.concat(rows, ignore_index=True)[columns]


def _summary(steps: ToolSteps, played: Played, ceiling_s: float, level: float) -> dict[str, Any]:
    reached, reason = _reached(steps, played)
    diverging = reached is not None
    source = played.source if not diverging else np.where(reached[:, None], played.source, 0)
    started = played.started if not diverging else played.started & reached[:, None]
    calls = int((source > 0).sum())
    counts = np.bincount(source.ravel(), minlength=len(SOURCES))
    hits = int(counts[USED] + counts[AWAITED] + counts[CACHED])
    wasted = started & ~played.served
    executed = int(started.sum())
    needed = calls - hits + executed
    sequential = steps.per_task(played.sequential_s) + steps.rest_s
    seconds = steps.per_task(played.duration_s) + steps.rest_s
    total, wasted_s = float(sequential.sum()), float(np.where(wasted, played.wasted_s, 0.0).sum())
    row = {
        "status": "diverges" if diverging else "ok",
        "reason": reason,
        "diverging_tasks": int(np.unique(steps.task[_first_false(steps, played)]).size) if diverging else 0,
        "tasks": len(steps.task_ids),
        "steps": len(steps) if not diverging else int(reached.sum()),
        "calls": calls,
        "hits": hits,
        "used": int(counts[USED]),
        "awaited": int(counts[AWAITED]),
        "cached": int(counts[CACHED]),
        "hit_pct": _percent(hits, calls),
        "ready_pct": _percent(hits - int(counts[AWAITED]), hits),
        "executed": executed,
        "wasted": int(wasted.sum()),
        "wasted_s": wasted_s,
        "waste_pct": _percent(wasted_s, total),
        "wasted_tokens": int(steps.tokens[wasted].sum()),
        "amplification": needed / calls if calls else np.nan,
        "estimated": int((started & steps.estimated).sum()),
        "sequential_s": total,
    }
    if diverging:
        return row | dict.fromkeys(("seconds", "saved_s", "speedup", "low", "high", "ceiling_pct"), np.nan)
    speedup = linearised_ratio(sequential, seconds, level=level)
    saved = total - float(seconds.sum())
    return row | {
        "seconds": float(seconds.sum()),
        "saved_s": saved,
        "speedup": speedup.value,
        "low": speedup.low,
        "high": speedup.high,
        "ceiling_pct": _percent(saved, ceiling_s),
    }


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else np.nan


def _first_false(steps: ToolSteps, played: Played) -> NDArray[np.int64]:
    """The first step of every task at which a false hit is served."""
    false = np.flatnonzero(played.false_hit)
    _, first = np.unique(steps.task[false], return_index=True)
    return false[first]


def _reached(steps: ToolSteps, played: Played) -> tuple[NDArray[np.bool_] | None, str]:
    """The steps up to the first false hit of their task, and what happens at the first of all; None where none is."""
    first = _first_false(steps, played)
    if not len(first):
        return None, ""
    last = np.full(len(steps.task_ids), len(steps))
    last[steps.task[first]] = first
    at = int(first[0])
    k = steps.guess_canonicals.shape[1]
    results = [steps.guess_canonicals[by // k, by % k] if by >= 0 else "" for by in played.served_by[at]]
    place = next(j for j, text in enumerate(results) if text and text != steps.canonicals[at, j])
    guess = results[place]
    reason = (
        f"task {steps.task_ids[steps.task[at]]}, step {steps.index[at]}: {steps.canonicals[at, place]} would get the "
        f"result of {guess}; what the actor does then is not recorded, run this setting to know it"
    )
    return np.arange(len(steps)) <= last[steps.task], reason


def replay_task_times(steps: ToolSteps, setting: ToolSetting) -> pd.DataFrame:
    """Seconds of every task under a setting.

    Returns:
        Index: task_id. Columns: sequential_s, seconds (nan where the task diverges), hits, diverges_at (number of the
        step, 0 where it does not).
    """
    played = play(steps, setting)
    first = _first_false(steps, played)
    diverges = np.zeros(len(steps.task_ids), np.int64)
    diverges[steps.task[first]] = steps.index[first]
    seconds = steps.per_task(played.duration_s) + steps.rest_s
    columns = {
        "sequential_s": steps.per_task(played.sequential_s) + steps.rest_s,
        "seconds": np.where(diverges > 0, np.nan, seconds),
        "hits": steps.per_task((played.source > EXECUTED).sum(axis=1)).astype(np.int64),
        "diverges_at": diverges,
    }
    return pd.DataFrame(columns, index=pd.Index(steps.task_ids, name="task_id"))
