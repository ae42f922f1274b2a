"""A gate setting on a run: numbers, charts and lists, each a function of the view and of what the run recorded.

Decisions and their price come from `replay`; nothing here decides anything itself. `Gating` keeps what does not
change while the threshold moves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..errors import DataError, StageError, UserError
from ..gating.gate import accepts
from ..judging.human import COLUMNS, Overrides, overrides_of, read_gating_marks
from ..paths import run_dir
from ..replay import outcomes as outcomes_module
from ..replay import replay_data, settings
from ..replay.outcomes import OUTCOMES, POOLED, decisions, replay
from ..replay.replay_data import INSTRUMENTED
from ..report.plots.style import MUTED, RIGHT, WRONG
from ..report.rendering import environment
from ..report.sample_page import VERDICT_SIGNS, short_id
from ..runs.recorded_run import RecordedRun
from ..stats.intervals import Estimate, proportion, z_value
from ..stats.paired import no_difference
from ..stats.proportions import funnel_shares
from ..stats.resampling import linearised_ratio
from .charts import distribution, figure, log_odds, trade_off
from .state import ALL, Chosen, GateView, in_task

CURVE_POINTS = 160
NO_MARKS = pd.DataFrame(columns=COLUMNS)
ROWS_SHOWN = 200
DECISIONS = ("accepted", "rejected", "routed", "draft_failed")


class Gating:
    """A run as the gate sees it. Views are functions of a `GateView`; parts and scores are kept between them."""

    def __init__(self, run: RecordedRun) -> None:
        self.run = run
        self.data = lru_cache(maxsize=2)(self._data)
        self.part = lru_cache(maxsize=8)(self._part)
        self._decided = lru_cache(maxsize=4)(self._decisions)
        self.curve = lru_cache(maxsize=16)(self._curve)
        self.read_checks()

    def read_checks(self) -> None:
        """What people said of answers, read anew; all else stays as it was read."""
        self.overrides: Overrides = {}
        self.fault = ""  # why people's checks cannot be read
        try:
            self.overrides = overrides_of(self.run.name)
        except DataError as error:
            self.fault = str(error)
        self.part.cache_clear()  # some of its answers hold people's verdicts

    @property
    def instrumented(self) -> str:
        """The arm the drafts are in."""
        return next((arm for arm in INSTRUMENTED if arm in self.run.arms), INSTRUMENTED[0])

    def usable_tasks(self) -> list[str]:
        """The tasks that are answered and judged to the end."""
        return list(self.run.finished(f"02_{self.instrumented}", f"03_judging/{self.instrumented}"))

    def notes(self) -> list[str]:
        """What of the run cannot be looked at, and why."""
        arm, usable = self.instrumented, self.usable_tasks()
        missing = [t for t in self.run.tasks if t not in usable]
        told = self.run.notes((f"02_{arm}", f"03_judging/{arm}"))
        return [n for n in told if any(t in n for t in missing)] + [self.fault] * bool(self.fault)

    def _data(self, protocol: str) -> replay_data.ReplayData:
        tasks = self.usable_tasks()
        if not tasks:
            told = "; ".join(self.notes()[:2]) or "run make reproduce for the embedded run"
            raise StageError(
                f"run {self.run.name} has no task whose answers and verdicts are finished: {told}"
            )
        return replay_data.load(self.run.select(tasks), protocol or None)

    def _part(self, task: str, protocol: str, reviewed: bool = False) -> replay_data.ReplayData:
        everything = self.data(protocol)
        if reviewed:
            everything = self._reviewed(everything)
        if task == ALL:
            return everything
        return everything.take(np.array([in_task(t, task) for t in everything.tasks], dtype=bool))

    def _reviewed(self, data: replay_data.ReplayData) -> replay_data.ReplayData:
        """The data with people's verdicts in place of the machine's."""
        records = self.run.records(self.instrumented)
        draft, agent = data.draft.copy(), data.agent.copy()
        for i, id_ in enumerate(data.ids):
            record = records[id_]
            for codes, said in ((draft, record.draft), (agent, record.trajectory)):
                check = self.overrides.get((id_, said.answer)) if said else None
                if check is not None:
                    codes[i] = replay_data.RIGHT if check.verdict == "right" else replay_data.WRONG
        return replace(data, draft=draft, agent=agent)

    def own_threshold(self, otherwise: float) -> float:
        """The threshold that the run was gated at, where it was."""
        config = self.run.config("02_gated") if "gated" in self.run.arms else {}
        return float(otherwise if config.get("threshold") is None else config["threshold"])

    def setting(self, view: GateView) -> settings.Setting:
        return settings.Setting(
            score=view.score,
            k=view.k,
            slope=view.slope,
            router=view.router,
            threshold=view.threshold,
            batch_size=self.run.config(f"02_{self.instrumented}").get(
                "batch_size", settings.Setting.batch_size
            ),
        )

    def decided(self, view: GateView) -> pd.DataFrame:
        """What becomes of every sample of the view's part. Raises `replay.NotRecorded` where the run cannot tell."""
        return self._decided(replace(view, chosen=Chosen(), sample=""))

    def _decisions(self, view: GateView) -> pd.DataFrame:
        return decisions(self.part(view.task, view.protocol), self.setting(view))

    def _curve(self, view: GateView) -> pd.DataFrame:
        """Accuracy, speedup and coverage over thresholds, evenly many drafts apart."""
        part = self.part(view.task, view.protocol)
        score = part.score(view.score, view.k, view.slope)
        known = score[np.isfinite(score)]
        thresholds = np.unique(np.concatenate([[0.0, 1.0], _spread(known)]))
        curve = outcomes_module.curve(part, self.setting(view), thresholds)
        pooled = curve[(curve["task"] == POOLED) & (curve["status"] == "ok")]
        if not len(pooled):
            raise replay_data.NotRecorded(curve["reason"].iloc[0])
        if (
            part.agent == replay_data.ABSENT
        ).any():  # imported: the agent was not asked where a draft was accepted
            pooled = pooled.assign(baseline_accuracy_pct=np.nan)
        return pooled.sort_values("threshold", ignore_index=True)

    def curve_of(self, view: GateView) -> pd.DataFrame:
        """`curve` of the setting, whatever its threshold and list are."""
        return self.curve(replace(view, threshold=0.5, chosen=Chosen(), sample=""))

    def marks(self, view: GateView) -> pd.DataFrame:
        """People's marks on gating decisions within the view's part."""
        marks = NO_MARKS if self.fault else read_gating_marks(self.run.name)
        ids = set(self.part(view.task, view.protocol).ids)
        return marks[marks["id"].isin(ids)]


def _spread(known: np.ndarray) -> np.ndarray:
    """Thresholds between which about equally many drafts lie."""
    if not len(known):
        return np.empty(0)
    return np.clip(np.quantile(known, np.linspace(0, 1, CURVE_POINTS)), 0.0, 1.0)


# ------------------------------------------------------------------ numbers


@dataclass(frozen=True)
class Outcome:
    """What a setting would give on a part of a run; every share with its denominator and interval.

    `difference_pp` (accuracy less the agent's, in percentage points) and `speedup` are paired on the same
    samples; `cost_note` says what the prediction of seconds extrapolates.
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
    cost_note: str = ""


def outcome(gating: Gating, view: GateView, reviewed: bool = False) -> Outcome:
    """The numbers of a view's setting on its part. Raises `replay.NotRecorded` where the run cannot tell."""
    part = gating.part(view.task, view.protocol, reviewed)
    decided = decisions(part, gating.setting(view)) if reviewed else gating.decided(view)
    told = replay(part, gating.setting(view))
    row = told[told["task"] == POOLED].iloc[0]
    if part.protocol == "paper":
        decided = decided[~decided["error"].astype(bool)]
    groups = pd.factorize(decided["group"])[0]
    gain = decided["right"].astype("float64") - decided["agent_right"].astype("float64")
    timed = decided["wall_s"].notna().to_numpy()
    n_accepted = int(row["accepted"])
    return Outcome(
        n=part.n,
        n_errors=int(row["n_errors"]),
        accuracy=Estimate(
            *(float(row[f"accuracy_{name}pct"]) for name in ("", "low_", "high_")),
            int(row["n"]),
            "%",
            row["interval"],
        ),
        difference_pp=_difference(gain.to_numpy(dtype=float), groups),
        **funnel_shares(n_accepted, int(row["drafted"]), part.n, proportion)._asdict(),
        risk=proportion(round(row["selective_risk"] * n_accepted) if n_accepted else 0, n_accepted),
        speedup=_speedup(row["speedup"], decided[timed], groups[timed]),
        wall_s=float(row["wall_s"]),
        baseline_wall_s=float(row["baseline_wall_s"]),
        cost_note=str(row["cost_note"]),
    )


def _difference(gain: np.ndarray, groups: np.ndarray) -> Estimate:
    """Mean of paired differences in percentage points; where none differs, the reach of Agresti and Min."""
    known = np.isfinite(gain)  # the agent's answer to an accepted sample need not be recorded
    gain, groups = gain[known], groups[known]
    if not len(gain):
        return Estimate(math.nan, math.nan, math.nan, 0, "pp")
    if not gain.any():
        return no_difference(len(gain), groups)
    return linearised_ratio(gain, np.ones(len(gain)), groups).times_100("pp")


def _speedup(value: float, timed: pd.DataFrame, groups: np.ndarray) -> Estimate:
    """The predicted speedup; its interval is that of the seconds charged to the samples."""
    ratio = linearised_ratio(timed["baseline_wall_s"].to_numpy(), timed["wall_s"].to_numpy(), groups)
    shift = float(value) - ratio.value  # calls shared by several samples add up a little differently
    return replace(ratio, value=float(value), low=ratio.low + shift, high=ratio.high + shift, unit="x")


def ledger_totals(decided: pd.DataFrame) -> pd.DataFrame:
    """What accepting and not accepting gained and lost against the agent alone, a row per entry of `OUTCOMES`.

    Columns: what; n (samples); saved_s (predicted seconds less than the agent alone; NaN: none, or not timed).
    """
    saved_s = (decided["baseline_wall_s"] - decided["wall_s"]).groupby(decided["outcome"])
    totals = pd.DataFrame({"n": saved_s.size(), "saved_s": saved_s.sum(min_count=1)}).reindex(list(OUTCOMES))
    return totals.assign(what=OUTCOMES, n=totals["n"].fillna(0).astype(int)).rename_axis("outcome")


def decisions_of(decided: pd.DataFrame) -> pd.DataFrame:
    """Counts of samples: decision (rows of `DECISIONS`) by verdict on the draft (right, not right)."""
    right = decided["draft_right"].fillna(False).astype(bool)
    return pd.DataFrame(
        {
            verdict: [int(((decided["decision"] == d) & (right == is_right)).sum()) for d in DECISIONS]
            for verdict, is_right in (("right", True), ("wrong", False))
        },
        index=list(DECISIONS),
    )


def current_dot(told: Outcome) -> list[float] | None:
    """Where a setting lies on the chart of `trade_off`; None where its accuracy is not known."""
    along = told.speedup.value if math.isfinite(told.speedup.value) else told.accepted.value
    at = [along, told.accuracy.value]
    return at if np.isfinite(at).all() else None


def overview_figure(gating: Gating, view: GateView) -> Figure:
    """Both charts as the explorer shows them, for paper and executed notebooks."""
    charts = [distribution(gating.part(view.task, view.protocol), view), trade_off(gating.curve_of(view))]
    dot = current_dot(outcome(gating, view))
    return figure(charts, markers=[float(log_odds(view.threshold)), None], dots=[None, dot])


# ------------------------------------------------------------------ the list


def listed(decided: pd.DataFrame, view: GateView, order: str = "nearest") -> pd.DataFrame:
    """The rows of `decided` that the view's choice holds, nearest to the threshold first (or by confidence, or id)."""
    found = decided[_chosen(decided, view)]
    if view.chosen.kind == "borderline":
        found = _nearest(found, view.threshold).head(view.chosen.n)
    if view.chosen.kind == "random":
        found = found.iloc[random_rows(len(found), view.chosen.n, view.chosen.seed)]
    if order == "nearest":
        return _nearest(found, view.threshold)
    return found.sort_values(["confidence", "id"]) if order == "confidence" else found


def _chosen(decided: pd.DataFrame, view: GateView) -> pd.Series:
    chosen, everything = view.chosen, pd.Series(True, index=decided.index)
    right = decided["draft_right"].fillna(False).astype(bool)
    reached = decided["decision"].isin(["accepted", "rejected"])
    match chosen.kind:
        case "decision":
            decision, verdict = chosen.name.split()
            return (decided["decision"] == decision) & (right == (verdict == "right"))
        case "outcome":
            return decided["outcome"] == chosen.name
        case "bar":
            inside = (decided["confidence"] > chosen.low) & (decided["confidence"] <= chosen.high)
            return reached & inside & (right == (chosen.name == "right"))
        case "moved":
            low, high = sorted((chosen.low, chosen.high))
            return reached & accepts(decided["confidence"], low) & ~accepts(decided["confidence"], high)
        case "disagree":
            agent = decided["agent_right"].astype("boolean")
            return ((agent != right) & agent.notna()).fillna(False).astype(bool)
        case "borderline":
            return reached & decided["confidence"].notna()
        case _:
            return everything


def _nearest(rows: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """In the scale of the charts: a step near 1 counts as much as a larger one in the middle."""
    distance = np.abs(log_odds(rows["confidence"].to_numpy(dtype=float)) - log_odds(threshold))
    return rows.iloc[np.argsort(distance, kind="stable")]  # nan last


def random_rows(n: int, wanted: int, seed: int) -> np.ndarray:
    """Positions of a seeded random sample, ascending; a larger sample of the same seed holds the smaller one."""
    return np.sort(np.random.default_rng(seed).permutation(n)[:wanted])


def sample_size(half_width_pp: float, n: int, level: float = 0.95) -> int:
    """How many of n samples to look at for a share known to +- `half_width_pp` whatever it is.

    Normal approximation at a share of one half, with the finite population correction.

    Raises:
        UserError: a half-width that is not between 0 and 50 points.
    """
    if not 0 < half_width_pp <= 50:
        raise UserError(f"the half-width must lie between 0 and 50 percentage points, got {half_width_pp}.")
    if n <= 0:
        return 0
    endless = (z_value(level) / (half_width_pp / 100.0)) ** 2 / 4
    return min(n, math.ceil(endless / (1 + (endless - 1) / n)))


def chosen_text(chosen: Chosen) -> str:
    """What the list holds, in words."""
    match chosen.kind:
        case "decision":
            decision, verdict = chosen.name.split()
            return f"{decision.replace('_', ' ')}, draft {verdict}"
        case "outcome":
            return f"{chosen.name}: {OUTCOMES[chosen.name]}"
        case "bar":
            return f"{chosen.name} drafts, confidence {chosen.low:.4f} to {chosen.high:.4f}"
        case "moved":
            low, high = sorted((chosen.low, chosen.high))
            return f"decided differently at {low:.4f} and at {high:.4f}"
        case "disagree":
            return "draft and agent disagree"
        case "borderline":
            return f"the {chosen.n} nearest to the threshold"
        case "random":
            return f"random sample of {chosen.n}, seed {chosen.seed}"
        case _:
            return "all samples"


LIST_COLUMNS = (
    {"title": "sample"},
    {"title": "confidence", "align": "right"},
    {"title": "decision"},
    {"title": "draft", "align": "middle"},
    {"title": "agent", "align": "middle"},
    {"title": "mark", "align": "middle"},
)


def list_rows(found: pd.DataFrame, marks: pd.DataFrame) -> list[dict]:
    """The first rows of a list, for `samples.js`."""
    marked = dict(zip(marks["id"], marks["mark"], strict=True))
    rows = []
    for row in found.head(ROWS_SHOWN).itertuples():
        confidence = "" if not np.isfinite(row.confidence) else f"{row.confidence:.4f}"
        verdicts = [_sign(row.draft_right), _sign(row.agent_right)]
        rows.append(
            {
                "id": row.id,
                "cells": [
                    short_id(row.id),
                    confidence,
                    row.decision.replace("_", " "),
                    *(sign for sign, _ in verdicts),
                    marked.get(row.id, ""),
                ],
                "colors": ["", "", "", *(color for _, color in verdicts), ""],
            }
        )
    return rows


def _sign(right: object) -> tuple[str, str]:
    if pd.isna(right):
        return "–", MUTED
    return (VERDICT_SIGNS["right"], RIGHT) if right else (VERDICT_SIGNS["wrong"], WRONG)


# ------------------------------------------------------------------ HTML


def outcome_html(told: Outcome, protocol: str, reviewed: Outcome | None = None, n_reviewed: int = 0) -> str:
    """The numbers as cards; `reviewed` are those with people's verdicts in place of the machine's."""
    difference = "" if math.isnan(told.difference_pp.value) else _signed(told.difference_pp, told.accuracy.n)
    speed = "not timed" if math.isnan(told.speedup.value) else f"{told.speedup.value:.2f}x"
    cards = [
        ("accuracy", _pct(told.accuracy), _interval(told.accuracy), difference),
        (
            "predicted speedup",
            speed,
            _measure_interval(told.speedup),
            f"{told.wall_s:.1f} s against {told.baseline_wall_s:.1f} s" if speed != "not timed" else "",
        ),
        ("coverage (accepted)", _pct(told.accepted), _interval(told.accepted), _alpha_beta(told)),
        ("selective risk", _pct(told.risk), _interval(told.risk), "wrong among the accepted"),
    ]
    counted = "failed samples are left out" if protocol == "paper" else "failed samples count as wrong"
    notes = [f"protocol {protocol}: {counted} ({told.n_errors} of {told.n})"]
    if told.cost_note:
        notes.append(told.cost_note)
    if reviewed is not None and n_reviewed:
        notes.append(
            f"with {n_reviewed} verdicts by people: accuracy {_pct(reviewed.accuracy)} {_interval(reviewed.accuracy)}"
        )
    return str(environment().get_template("gate.html").module.cards(cards, notes))


def _alpha_beta(told: Outcome) -> str:
    return f"alpha {told.alpha.value / 100:.3f} of the {told.beta.value / 100:.3f} that beta drafts"


def _pct(share: Estimate) -> str:
    return "none" if math.isnan(share.value) else f"{share.value:.1f} %"


def _interval(share: Estimate) -> str:
    if math.isnan(share.low):
        return f"no interval (n={share.n})"
    return f"[{share.low:.1f}, {share.high:.1f}] n={share.n}"


def _measure_interval(measure: Estimate) -> str:
    if math.isnan(measure.low):
        return f"no interval (n={measure.n})"
    return f"[{measure.low:.2f}, {measure.high:.2f}] n={measure.n}"


def _signed(difference: Estimate, n: int) -> str:
    interval = "" if math.isnan(difference.low) else f" [{difference.low:+.1f}, {difference.high:+.1f}]"
    told = f"{difference.value:+.1f} pp{interval} against the agent alone"
    return told if difference.n == n else f"{told}, where its answer is recorded (n={difference.n})"


def marks_text(marks: pd.DataFrame, ids: Sequence[str], what: str) -> str:
    """How far a review has come: marks among these samples, and the share of sound decisions with its interval."""
    inside = marks[marks["id"].isin(set(ids))]
    if not len(inside):
        return f"nothing marked yet in {what} (n={len(ids)})"
    sound = int((inside["mark"] == "sound").sum())
    return f"{len(inside)} of {len(ids)} marked in {what}: sound {proportion(sound, len(inside))}"


REVIEW_FILE = "human_review.csv"


def review_table(gating: Gating, view: GateView) -> pd.DataFrame:
    """Every mark within the view's part, with the decision it is on at the view's setting."""
    marks = gating.marks(view)[["id", "mark", "reason", "author", "time_utc"]]
    columns = ["id", "task", "decision", "confidence", "draft_right", "agent_right"]
    return marks.merge(gating.decided(view)[columns], on="id", how="left").assign(threshold=view.threshold)


def export_review(gating: Gating, view: GateView) -> Path:
    """Write `review_table` beside the run and return the file. The checks themselves stay where they are."""
    path = run_dir(gating.run.name) / REVIEW_FILE
    review_table(gating, view).to_csv(path, index=False)
    return path
