"""A gate setting on a run: numbers, charts and lists, each a function of the view and of what the run recorded.

Decisions and their price come from `replay`; nothing here decides anything itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import DataError, StageError, UserError
from ..gating.gate import accepts
from ..judging.human import COLUMNS, Overrides, overrides_of, read_gating_marks
from ..paths import run_dir
from ..replay import outcomes, replay_data, settings
from ..replay.payoff import DECISIONS
from ..report.formatting import apart
from ..report.plots.style import MUTED, RIGHT, WRONG
from ..report.rendering import environment
from ..report.sample_page import VERDICT_SIGNS, short_id
from ..runs.recorded_run import RecordedRun
from ..runs.stage import csv_text
from ..stats.intervals import Estimate, proportion, z_value
from ..stats.paired import no_difference
from ..stats.proportions import funnel_shares
from ..stats.resampling import linearised_ratio
from .charts import Scale
from .comparing import FLIPS, Comparison
from .state import ALL, Chosen, GateView, in_task

CURVE_POINTS = 160
UNKNOWN = {"value": math.nan, "low": math.nan, "high": math.nan}  # of an estimate
REVIEW_FILE = "human_review.csv"
NEAREST = "nearest"  # to the threshold first
# orders of the list, by the key of the header: columns of `decisions` and of `listed`
ORDERS = {
    "id": [],  # as in the run
    "confidence": ["confidence"],
    "decision": ["decision", "confidence"],
    "draft": ["draft_right"],
    "agent": ["agent_right"],
    "outcome": ["outcome"],
    "mark": ["mark"],
    "pinned": ["there", "right_there"],
}
LIST_COLUMNS = (
    {"title": "sample", "key": "id"},
    {"title": "confidence", "align": "right", "key": "confidence"},
    {"title": "decision", "key": "decision"},
    *({"title": title, "align": "middle", "key": title} for title in ("draft", "agent", "mark")),
)
PINNED_COLUMN = {"title": "pinned", "key": "pinned"}  # decision and verdict there
_SIGNS = {True: (VERDICT_SIGNS["right"], RIGHT), False: (VERDICT_SIGNS["wrong"], WRONG)}


class Gating:
    """A run as the gate sees it. Views are functions of a `GateView`; parts and scores are kept between them."""

    def __init__(self, run: RecordedRun) -> None:
        self.run = run
        self.data = lru_cache(maxsize=2)(self._data)
        self.part = lru_cache(maxsize=8)(self._part)
        self._decisions = lru_cache(maxsize=4)(
            lambda view: outcomes.decisions(
                self.part(view.task, view.protocol), self.setting(view), partial=True
            )
        )
        self._curves = lru_cache(maxsize=16)(self._curve)
        self.read_checks()

    def read_checks(self) -> None:
        """Read the verdicts of people again; everything else stays as it was read."""
        self.overrides: Overrides = {}
        self.fault = ""  # why the verdicts of people cannot be read
        try:
            self.overrides = overrides_of(self.run.name)
        except DataError as error:
            self.fault = str(error)
        self.part.cache_clear()  # some of its parts hold verdicts of people

    @property
    def instrumented(self) -> str:
        """The arm that holds the drafts."""
        known = replay_data.INSTRUMENTED
        return next((arm for arm in known if arm in self.run.arms), known[0])

    def usable_tasks(self) -> tuple[str, ...]:
        """The tasks whose answers and verdicts are finished."""
        return self.run.finished(f"02_{self.instrumented}", f"03_judging/{self.instrumented}")

    def notes(self) -> list[str]:
        """What of the run cannot be shown, and why."""
        missing = set(self.run.tasks) - set(self.usable_tasks())
        notes = self.run.notes((f"02_{self.instrumented}", f"03_judging/{self.instrumented}"))
        return [n for n in notes if any(t in n for t in missing)] + [self.fault] * bool(self.fault)

    def gaps(self) -> list[str]:
        """What cannot be known of the gate because the run did not record it."""
        data = self.data("")
        absent = int((data.agent == replay_data.ABSENT).sum())
        of = "any sample" if absent == data.n else f"{absent} of {data.n} samples"
        agent = f"The agent's answer is not recorded for {of}: accuracy is shown only where no such answer is needed."
        return [agent] * bool(absent) + ["Nothing was timed: no speedup can be shown."] * (data.cost is None)

    def _data(self, protocol: str) -> replay_data.ReplayData:
        if tasks := self.usable_tasks():
            return replay_data.load(self.run.select(tasks), protocol or None)
        notes = "; ".join(self.notes()[:2]) or "run make reproduce for the embedded run"
        raise StageError(f"run {self.run.name} has no task whose answers and verdicts are finished: {notes}")

    def _part(self, task: str, protocol: str, reviewed: bool = False) -> replay_data.ReplayData:
        """The samples of a task; `reviewed`: with the verdicts of people in place of the machine's."""
        data = self.data(protocol)
        if reviewed:
            records = self.run.records(self.instrumented)
            draft, agent = data.draft.copy(), data.agent.copy()
            for i, id_ in enumerate(data.ids):
                for codes, part in ((draft, records[id_].draft), (agent, records[id_].trajectory)):
                    if part and (check := self.overrides.get((id_, part.answer))):
                        codes[i] = replay_data.RIGHT if check.verdict == "right" else replay_data.WRONG
            data = replace(data, draft=draft, agent=agent)
        keep = np.array([in_task(t, task) for t in data.tasks], dtype=bool)
        return data if task == ALL else data.take(keep)

    def own_threshold(self, otherwise: float, view: GateView) -> float:
        """The threshold that the run was gated at; where it was not, the median of a score on another scale."""
        threshold = self.run.config("02_gated").get("threshold") if "gated" in self.run.arms else None
        if threshold is None and not self.scale(view).shares:
            data = self.data(view.protocol)
            threshold = np.nanmedian(data.score(view.score, view.k, view.slope))
        return float(otherwise if threshold is None else threshold)

    def scale(self, view: GateView) -> Scale:
        """The scale of the view's score in the whole run; without such a score from 0 to 1."""
        try:
            return Scale.of(self.data(view.protocol).score(view.score, view.k, view.slope))
        except replay_data.NotRecorded:
            return Scale()

    def setting(self, view: GateView) -> settings.Setting:
        """The setting that `replay` evaluates for a view."""
        config = self.run.config(f"02_{self.instrumented}")
        batch_size = config.get("batch_size", settings.Setting.batch_size)
        return settings.Setting(view.score, view.k, view.slope, view.threshold, view.router, batch_size)

    def decided(self, view: GateView) -> pd.DataFrame:
        """`replay.decisions` for every sample of the view's part; answers that are not recorded are missing.

        Raises:
            NotRecorded: the run cannot have the view's score, K, slope or router.
        """
        return self._decisions(view.gate())

    def curve_of(self, view: GateView) -> pd.DataFrame:
        """Accuracy, speedup, coverage and selective risk of the view's setting over thresholds.

        The thresholds lie evenly many drafts apart. Accuracies are missing where the agent's answers are needed and not
        recorded.
        """
        return self._curves(replace(view.gate(), threshold=0.5))

    def _curve(self, view: GateView) -> pd.DataFrame:
        part = self.part(view.task, view.protocol)
        score = part.score(view.score, view.k, view.slope)
        known = score[np.isfinite(score)]
        between = np.quantile(known, np.linspace(0, 1, CURVE_POINTS)) if len(known) else ()
        scale = Scale.of(score)
        curve = outcomes.curve(part, self.setting(view), np.unique([scale.lowest, scale.highest, *between]))
        pooled = curve[curve["task"] == outcomes.POOLED]
        known = pooled["status"] == "ok"
        if known.sum() >= 2:
            pooled = pooled[known]
        else:  # no accuracy to draw a line of; the drafts alone have their errors
            pooled = pooled.assign(**_of_drafts(self.decided(view), pooled["threshold"].to_numpy()))
        if (part.agent == replay_data.ABSENT).any():  # imported: accepted samples have no answer of the agent
            pooled = pooled.assign(baseline_accuracy_pct=np.nan)
        return pooled.sort_values("threshold", ignore_index=True)

    def decided_pinned(self, view: GateView) -> pd.DataFrame:
        """`decided` of the view's pinned setting, which is of this run, on the view's part as far as the run has it."""
        pinned = view.of_pin()
        here = any(in_task(task, view.task) for task in self.data(pinned.protocol).task_names)
        return self.decided(pinned if here else replace(pinned, task=ALL))

    @cached_property
    def texts(self) -> dict[str, str]:
        """What a search looks into, by sample: question, options and the judged answers, casefolded."""
        return {
            id_: " ".join((j.question, *j.options, *(v.answer or "" for v in j.verdicts), id_)).casefold()
            for id_, j in self.run.judged(self.instrumented).items()
        }

    def marks(self, view: GateView) -> pd.DataFrame:
        """The marks of people on gating decisions within the view's part."""
        marks = pd.DataFrame(columns=COLUMNS) if self.fault else read_gating_marks(self.run.name)
        return marks[marks["id"].isin(self.part(view.task, view.protocol).ids)]


# ------------------------------------------------------------------ numbers


@dataclass(frozen=True)
class GateSummary:
    """What a setting would give on a part of a run; every share with its denominator and interval.

    `difference_pp` (accuracy less the agent's, in percentage points) and `speedup` are paired on the same
    samples; `cost_note` says what the prediction of seconds extrapolates. `lacks` names what accuracy, difference and
    speedup need and the run did not record; they are NaN then.
    """

    n: int
    n_errors: int
    accuracy: Estimate
    difference_pp: Estimate
    accepted: Estimate
    alpha: Estimate
    beta: Estimate
    risk: Estimate
    speedup: Estimate
    wall_s: float
    baseline_wall_s: float
    cost_note: str
    lacks: str


def gate_summary(gating: Gating, view: GateView, reviewed: bool = False) -> GateSummary:
    """The numbers of a view's setting on its part.

    Args:
        gating: the run.
        view: setting and part.
        reviewed: with the verdicts of people in place of the machine's.

    Raises:
        NotRecorded: the run lacks what the setting needs.
    """
    part, setting = gating.part(view.task, view.protocol, reviewed), gating.setting(view)
    decided = outcomes.decisions(part, setting, partial=True) if reviewed else gating.decided(view)
    row = outcomes.replay(part, setting).set_index("task").loc[outcomes.POOLED]
    accepted = decided["decision"] == "accepted"
    n_accepted, n_errors = int(accepted.sum()), int(decided["error"].sum())
    n_drafted = int((decided["decision"] != "routed").sum())
    risk = proportion(int((accepted & ~_draft_right(decided)).sum()), n_accepted)
    if part.protocol == "paper":
        decided = decided[~decided["error"].astype(bool)]
    groups = pd.factorize(decided["group"])[0]
    gain = (decided["right"].astype(float) - decided["agent_right"].astype(float)).to_numpy()
    accuracy = (float(row[f"accuracy_{end}pct"]) for end in ("", "low_", "high_"))
    return GateSummary(
        n=part.n,
        n_errors=n_errors,
        accuracy=Estimate(*accuracy, int(row["n"]), "%", row["interval"]),
        difference_pp=replace(_difference(gain, groups), **({} if row["status"] == "ok" else UNKNOWN)),
        **funnel_shares(n_accepted, n_drafted, part.n, proportion)._asdict(),
        risk=replace(risk, **(UNKNOWN if decided["draft_right"][accepted].isna().any() else {})),
        speedup=outcomes.speedup_estimate(float(row["speedup"]), decided),
        wall_s=float(row["wall_s"]),
        baseline_wall_s=float(row["baseline_wall_s"]),
        cost_note=str(row["cost_note"]),
        lacks=str(row["reason"]),
    )


def _difference(gain: np.ndarray, groups: np.ndarray) -> Estimate:
    """Mean of paired differences in percentage points; where none differs, the reach of Agresti and Min."""
    known = np.isfinite(gain)  # the agent's answer to an accepted sample need not be recorded
    gain, groups = gain[known], groups[known]
    if len(gain) and not gain.any():
        return no_difference(len(gain), groups)
    return linearised_ratio(gain, np.ones(len(gain)), groups).times_100("pp")


def ledger_totals(decided: pd.DataFrame) -> pd.DataFrame:
    """What accepting and not accepting gained and lost against the agent alone, a row per entry of `OUTCOMES`.

    Columns: what; n (samples); saved_s (predicted seconds less than the agent alone; NaN: none, or not timed).
    """
    saved_s = (decided["baseline_wall_s"] - decided["wall_s"]).groupby(decided["outcome"])
    totals = pd.DataFrame({"n": saved_s.size(), "saved_s": saved_s.sum(min_count=1)})
    totals = totals.reindex(list(outcomes.OUTCOMES)).rename_axis("outcome")
    return totals.assign(what=outcomes.OUTCOMES, n=totals["n"].fillna(0).astype(int))


def decisions_of(decided: pd.DataFrame) -> pd.DataFrame:
    """Counts of samples: decision (rows of `DECISIONS`) by verdict on the draft (right, not right)."""
    verdict = np.where(_draft_right(decided), "right", "wrong")
    counts = pd.crosstab(decided["decision"], verdict)
    return counts.reindex(index=DECISIONS, columns=["right", "wrong"], fill_value=0)


def _draft_right(decided: pd.DataFrame) -> pd.Series:
    return decided["draft_right"].fillna(False).astype(bool)


def current_dot(summary: GateSummary, of_drafts: bool = False) -> list[float] | None:
    """Where a setting lies on the chart of `trade_off`; None where that is not known.

    `of_drafts`: on the chart of a run without accuracies, which shows the selective risk.
    """
    timed = math.isfinite(summary.speedup.value) and not of_drafts
    along = summary.speedup if timed else summary.accepted
    at = [along.value, (summary.risk if of_drafts else summary.accuracy).value]
    return at if np.isfinite(at).all() else None


def _of_drafts(decided: pd.DataFrame, thresholds: np.ndarray) -> dict[str, np.ndarray]:
    """Coverage and selective risk at thresholds [t], which need no agent; NaN: a verdict is missing."""
    reached = decided[decided["decision"].isin(["accepted", "rejected"])]
    taken = accepts(reached["confidence"].to_numpy()[:, None], thresholds)
    unjudged = taken[reached["draft_right"].isna().to_numpy()].any(axis=0)
    wrong, n = taken[~_draft_right(reached).to_numpy()].sum(axis=0), taken.sum(axis=0)
    with np.errstate(invalid="ignore"):
        return {"coverage": n / len(decided), "selective_risk": np.where(unjudged, np.nan, wrong / n)}


# ------------------------------------------------------------------ the list


def listed(
    decided: pd.DataFrame,
    view: GateView,
    marks: pd.DataFrame | None = None,
    texts: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """The rows of `decided` that the view's choice holds and whose text has the words searched for, in its order.

    Args:
        decided: of `decisions`, or of `comparing.beside`.
        view: choice, words and order.
        marks: of people; they become the column `mark`.
        texts: what is searched, by id (`Gating.texts`).

    Returns:
        Rows of `decided`; `attrs["what"]` says in words what the list holds.
    """
    chosen, scale = view.chosen, Scale.of(decided["confidence"].to_numpy(dtype=float))
    what, mask = _chosen(decided, chosen)
    rows = decided[mask]
    if chosen.kind == "borderline":
        rows = _nearest(rows, view.threshold, scale).head(chosen.n)
    if chosen.kind == "random":  # a larger sample of the same seed holds the smaller one
        shuffled = np.random.default_rng(chosen.seed).permutation(len(rows))
        rows = rows.iloc[np.sort(shuffled[: chosen.n])]
    if words := view.search.casefold().split():
        texts = texts or {}
        rows = rows[[all(word in texts.get(id_, "") for word in words) for id_ in rows["id"]]]
        what += f", with {view.search.strip()!r}"
    marked = {} if marks is None else dict(zip(marks["id"], marks["mark"], strict=True))
    rows = _in_order(rows.assign(mark=[marked.get(id_, "") for id_ in rows["id"]]), view, scale)
    rows.attrs["what"] = what
    return rows


def _in_order(rows: pd.DataFrame, view: GateView, scale: Scale) -> pd.DataFrame:
    if view.order == NEAREST:
        return _nearest(rows, view.threshold, scale)
    key, down = view.order.removeprefix("-"), view.order.startswith("-")
    if not ORDERS[key]:
        return rows[::-1] if down else rows
    columns = [column for column in ORDERS[key] if column in rows]  # nothing is pinned: as in the run
    return (
        rows.sort_values(columns, ascending=not down, kind="stable", na_position="last") if columns else rows
    )


def _chosen(decided: pd.DataFrame, chosen: Chosen) -> tuple[str, pd.Series]:
    """What the choice is in words, and which rows it holds, before a queue is cut to its size."""
    right, confidence = _draft_right(decided), decided["confidence"]
    reached = decided["decision"].isin(["accepted", "rejected"])
    low, high = sorted((chosen.low, chosen.high))
    match chosen.kind:
        case "decision":
            decision, verdict = chosen.name.split()
            mask = (decided["decision"] == decision) & (right == (verdict == "right"))
            return f"{decision.replace('_', ' ')}, draft {verdict}", mask
        case "outcome":
            return f"{chosen.name}: {outcomes.OUTCOMES[chosen.name]}", decided["outcome"] == chosen.name
        case "bar":
            mask = reached & (confidence > low) & (confidence <= high) & (right == (chosen.name == "right"))
            return f"{chosen.name} drafts, confidence {low:.4f} to {high:.4f}", mask
        case "moved":
            mask = reached & accepts(confidence, low) & ~accepts(confidence, high)
            return "decided differently at {} and at {}".format(*apart(low, high)), mask
        case "flipped" if "flip" in decided:
            mask = decided["flip"] == chosen.name if chosen.name else decided["flip"] != ""
            return f"flipped against the pinned setting{chosen.name and f', {FLIPS[chosen.name]}'}", mask
        case "disagree":
            mask = (decided["agent_right"] != right).fillna(False).astype(bool)
            return "draft and agent disagree", mask
        case "borderline":
            return f"the {chosen.n} nearest to the threshold", reached & confidence.notna()
    everything = pd.Series(True, index=decided.index)
    random = f"random sample of {chosen.n}, seed {chosen.seed}"
    return random if chosen.kind == "random" else "all samples", everything


def _nearest(rows: pd.DataFrame, threshold: float, scale: Scale) -> pd.DataFrame:
    """In the scale of the charts: a step near 1 counts as much as a larger one in the middle."""
    score = rows["confidence"].to_numpy(dtype=float)
    distance = np.abs(scale.place(score) - scale.place(threshold))
    return rows.iloc[np.argsort(distance, kind="stable")]  # nan last


def sample_size(half_width_pp: float, n: int, level: float = 0.95) -> int:
    """How many of n samples to review for a share known to +- `half_width_pp`, whatever the share is.

    Normal approximation at a share of one half, with the finite population correction.

    Raises:
        UserError: a half-width that is not between 0 and 50 points.
    """
    if not 0 < half_width_pp <= 50:
        raise UserError(f"the half-width must lie between 0 and 50 percentage points, got {half_width_pp}.")
    endless = (z_value(level) / (half_width_pp / 100.0)) ** 2 / 4
    return min(n, math.ceil(endless / (1 + (endless - 1) / n))) if n else 0


def list_csv(rows: pd.DataFrame, view: GateView) -> str:
    """The rows of a list as CSV: what the setting does with each sample, and beside a pinned one what that did."""
    columns = ["id", "task", "confidence", "threshold", "decision", "draft_right", "agent_right", "right"]
    columns += ["outcome", "wall_s", "baseline_wall_s", "mark", "there", "right_there", "flip"]
    table = rows.assign(threshold=view.threshold)
    return csv_text(table[[column for column in columns if column in table]])


def list_rows(rows: pd.DataFrame) -> list[dict]:
    """Rows of a list for `samples.js`; rows of `comparing.beside` also say what the pinned setting did."""
    entries = []
    for row in rows.itertuples():
        confidence = f"{row.confidence:.4f}" if np.isfinite(row.confidence) else ""
        (draft, draft_color), (agent, agent_color) = (
            _SIGNS.get(right, ("–", MUTED)) for right in (row.draft_right, row.agent_right)
        )
        cells = [short_id(row.id), confidence, row.decision.replace("_", " "), draft, agent, row.mark]
        colors = ["", "", "", draft_color, agent_color, ""]
        if "there" in rows:
            sign, color = _SIGNS.get(row.right_there, ("–", MUTED))
            cells.insert(3, f"{row.there.replace('_', ' ')} {sign}" if row.there else "not in that run")
            colors.insert(3, color if row.there else MUTED)
        entries.append({"id": row.id, "cells": cells, "colors": colors})
    return entries


# ------------------------------------------------------------------ HTML


def summary_html(
    summary: GateSummary,
    protocol: str,
    reviewed: GateSummary | None = None,
    n_reviewed: int = 0,
    against: Comparison | None = None,
) -> str:
    """The numbers as cards; `reviewed` are those with the verdicts of people in place of the machine's.

    `against` is the comparison with a pinned setting.
    """
    template = environment().get_template("gate.html").module
    return str(template.cards(summary, protocol, reviewed, n_reviewed, against))


def marks_text(marks: pd.DataFrame, ids: Sequence[str], what: str) -> str:
    """The progress of a review: marks among these samples, and the share of sound decisions with its interval."""
    inside = marks[marks["id"].isin(ids)]
    if not len(inside):
        return f"nothing marked yet in {what} (n={len(ids)})"
    sound = int((inside["mark"] == "sound").sum())
    return f"{len(inside)} of {len(ids)} marked in {what}: sound {proportion(sound, len(inside))}"


def export_review(gating: Gating, view: GateView) -> Path:
    """Write every mark within the view's part, with the decision at the view's setting; returns the file.

    The file is a copy beside the run. The checks themselves stay where they are.
    """
    marks = gating.marks(view)[["id", "mark", "reason", "author", "time_utc"]]
    columns = ["id", "task", "decision", "confidence", "draft_right", "agent_right"]
    table = marks.merge(gating.decided(view)[columns], on="id", how="left").assign(threshold=view.threshold)
    path = run_dir(gating.run.name) / REVIEW_FILE
    path.write_text(csv_text(table), "utf-8")
    return path
