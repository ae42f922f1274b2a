"""The data of the notebooks 04: every score of a run's drafts, the run's settings, and samples to certify.

A run may lack evidence, options, the router's log-probabilities or times (imported files do). What follows from
them is then absent, and `missing` gives the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import StageError, UserError
from ..gating import calibration_samples, certificates, layers, scores
from ..gating.gate import accepts
from ..gating.scores import GATE_SCORES
from ..gating.separability import DEFAULT_K, DEFAULT_SLOPE, PAPER_SCORES
from ..gating.threshold import OperatingPoint
from ..params import ConfidenceParams, GateAnalysisParams
from ..replay import outcomes, payoff, replay_data
from ..replay.fleet import Fleet, agent_workload, best_ratio, funnel_workload, simulate_fleet
from ..replay.replay_data import ABSENT, NotRecorded, ReplayData
from ..replay.settings import Setting
from ..runs import recorded_run
from ..runs.evidence import Evidence
from ..runs.records import PHASES
from ..stats import calibration, ranking
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap
from . import ablations, sample_frame, score_comparison, summary

FEW_TO_LEARN = "too few right or wrong drafts to learn from"


@dataclass(frozen=True, eq=False)
class ConfidenceData:
    """A run as the notebooks 04 use it.

    Attributes:
        frame: a row per sample (`sample_frame.samples`).
        data: the same samples as replay takes them; the gate can use every score in `scores`.
        scores: a column per score that the run has, rows as in the frame.
        margin: smallest (p_1 - p_2) / (p_1 + p_2) of each draft, nan without evidence.
        setting: as the run was gated, but for the threshold.
        missing: what is not shown -> what the run lacks for it, in words.
        chosen_here: the threshold that `gating.choose_threshold` picks on these samples.
        used: the operating point in use, from `threshold_from`, or `chosen_here` where that is empty.
    """

    frame: pd.DataFrame
    data: ReplayData
    scores: pd.DataFrame
    margin: NDArray[np.float64]
    setting: Setting
    missing: Mapping[str, str]
    chosen_here: OperatingPoint
    used: Mapping[str, Any]

    @property
    def drafted(self) -> NDArray[np.bool_]:
        """Samples with a judged draft, bool [n]."""
        return self.frame["draft_verdict"].notna().to_numpy()

    @property
    def drafts(self) -> pd.DataFrame:
        """The judged drafts: a column per score that one of them has, and `right`."""
        scores = self.scores[self.drafted].dropna(axis=1, how="all")
        return scores.assign(right=self.right[self.drafted])

    @property
    def right(self) -> NDArray[np.bool_]:
        """Samples whose draft is right, bool [n]."""
        return sample_frame.right_of(self.frame, "draft").to_numpy()

    @property
    def certifiable(self) -> NDArray[np.bool_]:
        """Samples whose draft and agent were recorded, bool [n]: those that `to_certify` gives."""
        return (self.data.agent != ABSENT) & ((self.data.draft != ABSENT) | ~self.data.readable)

    @cached_property
    def identical(self) -> list[list[str]]:
        """The names of the scores, those that agree on every draft in one group."""
        return score_comparison.identical_scores(self.drafts.drop(columns="right"))

    def auroc(self, names: Sequence[str], bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> dict:
        """`summary.auroc_by_score`."""
        return summary.auroc_by_score(self.frame, names, bootstrap)

    def compared(self, coverages: Sequence[float], bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> pd.DataFrame:
        """`score_comparison.compare_scores` of all scores."""
        drafts, groups = self.drafts, self.frame["group"][self.drafted]
        return score_comparison.compare_scores(
            drafts.drop(columns="right"), drafts["right"], groups, coverages=coverages, bootstrap=bootstrap
        )

    def merged(self, compared: pd.DataFrame) -> pd.DataFrame:
        """Rows of `compared`, one for each group of identical scores."""
        return score_comparison.merged_scores(compared, self.identical)

    def risk_coverage(self, names: Sequence[str]) -> pd.DataFrame:
        """`ranking.risk_coverage` of several scores: score, coverage_pct, risk_pct, aurc, n."""
        drafts = self.drafts
        parts = []
        for name in names:
            curve = ranking.risk_coverage(drafts[name], drafts["right"], bootstrap=Bootstrap(draws=1))
            columns = {"score": name, "coverage_pct": curve.coverage_pct, "risk_pct": curve.risk_pct}
            parts.append(pd.DataFrame(columns).assign(aurc=curve.aurc.value, n=curve.n))
        return pd.concat(parts, ignore_index=True)

    def rolling_by_rank(self, names: Sequence[str], window: int = 50) -> pd.DataFrame:
        """`ranking.rolling_accuracy` of several scores, over windows of so many drafts, one score below the other.

        Columns: score, rank_pct (middle of the window), accuracy_pct, low_pct, high_pct, window, n.
        """
        drafts = self.drafts
        parts = []
        for name in names:
            curve = ranking.rolling_accuracy(drafts[name], drafts["right"], window)
            rank = np.arange(len(curve.score)) + curve.window / 2
            columns = {"score": name, "rank_pct": 100 * (rank / max(curve.n, 1))}
            columns |= {c: getattr(curve, c) for c in ("accuracy_pct", "low_pct", "high_pct", "window", "n")}
            parts.append(pd.DataFrame(columns))
        return pd.concat(parts, ignore_index=True)

    def reliability(self, n_bins: int = 10) -> pd.DataFrame:
        """Equally filled bins of the scores that are probabilities, identical ones once.

        Columns: score, promised_pct, accuracy_pct, low_pct, high_pct, n_bin.
        """
        drafts = self.drafts
        columns = ("promised_pct", "accuracy_pct", "low_pct", "high_pct", "n_bin")
        parts = [pd.DataFrame(columns=["score", *columns])]
        for name in (group[0] for group in self.identical if scores.score_of(group[0]).is_probability):
            bins = calibration.reliability(drafts[name], drafts["right"], n_bins)
            parts.append(pd.DataFrame({"score": name, **{c: getattr(bins, c) for c in columns}}))
        return pd.concat(parts[1:] or parts, ignore_index=True)

    def front(self, names: Sequence[str]) -> pd.DataFrame:
        """`ablations.front` of some scores, under the run's setting."""
        return ablations.front(self.data, self.setting, names)

    def to_certify(self, score: str | None = None) -> calibration_samples.GateSamples:
        """The run's samples as `certify` takes them, under its router; with predicted seconds where it was timed.

        Samples whose draft or agent was not recorded are left out.

        Raises:
            NotRecorded: the score or the router's answers are not recorded.
        """
        setting = replace(self.setting, score=score or self.setting.score)
        data = self.data.take(self.certifiable)
        everything, nothing = (outcomes.decisions(data, replace(setting, threshold=t)) for t in (-1.0, 1.0))
        times = (everything["wall_s"], nothing["wall_s"], nothing["baseline_wall_s"])
        return calibration_samples.gate_samples(
            everything["confidence"],
            data.draft_right,
            data.agent_right,
            routed=everything["decision"] != "accepted",
            groups=data.groups,
            strata=data.tasks,
            times=None if data.cost is None else times,
        )

    def tried_here(self, params: GateAnalysisParams, rules: Sequence[certificates.Rule]) -> pd.DataFrame:
        """`gating.evaluate_rules`: rules calibrated on the run that chose the threshold in use, measured on this one.

        Empty where the threshold was chosen on this run, or the other run does not exist.
        """
        origin = self.used.get("chosen_on", {})
        name = origin.get("run")
        if not name or name == params.run:
            return pd.DataFrame()
        calibration = recorded_run.open(name, tasks=origin.get("tasks", params.tasks), strict=False)
        tasks = calibration.finished(f"03_judging/{params.arm}")
        if not tasks:
            return pd.DataFrame()
        other = gather_confidence(params.model_copy(update={"run": name, "tasks": list(tasks)}))
        return certificates.evaluate_rules(other.to_certify(), self.to_certify(), rules, params.seed)

    def ties(self, thresholds: Mapping[str, float]) -> pd.DataFrame:
        """`near_ties` of the drafts above each threshold, named in the column `drafts`; the router is left out."""
        score, parts = self.scores[self.setting.score], []
        for name, threshold in thresholds.items():
            above = self.drafted & accepts(score, threshold)
            counts = score_comparison.near_ties(self.margin[above], self.right[above])
            parts.append(counts.assign(drafts=name))
        return pd.concat(parts, ignore_index=True)

    def costs_at(self, threshold: float) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """`phase_seconds`, `break_even`, `waterfall` and `time_by_decision` at a threshold.

        Without rows where the run was not timed; the first has its columns all the same.
        """
        try:
            seconds = payoff.phase_seconds(self.data, replace(self.setting, threshold=threshold))
        except NotRecorded:
            times = [f"{prefix}{phase}" for prefix in ("", "alone_") for phase in PHASES]
            seconds = pd.DataFrame(columns=["task", "decision", *times])
            empty = pd.DataFrame()
            return seconds.astype(dict.fromkeys(times, "float64")), empty, empty, empty
        parts = payoff.break_even(seconds), payoff.waterfall(seconds), payoff.time_by_decision(seconds)
        return seconds, *parts

    def fleet_plan(
        self,
        threshold: float,
        replicas: int = 8,
        users: Sequence[int] = (1, 4, 16, 64, 256, 1024),
        seed: int = 0,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """`best_ratio` of the funnel and of the agent alone, and both under more and more users on the best fleets.

        Column `workload` is "funnel" or "agent". No rows where the run was not timed.
        """
        try:
            gated = funnel_workload(self.data, replace(self.setting, threshold=threshold))
            workloads = {"funnel": gated, "agent": agent_workload(self.data)}
        except NotRecorded:
            columns = ["small", "large", "per_gpu_per_s", "p50_s", "p95_s", "n", "workload"]
            return pd.DataFrame(columns=columns), pd.DataFrame()
        fleets, load = [], []
        for name, workload in workloads.items():
            ratios = best_ratio(workload, replicas, users=64 * replicas, requests=1500, seed=seed)
            fleets.append(ratios.assign(workload=name))
            fleet = Fleet(int(ratios.loc[0, "small"]), int(ratios.loc[0, "large"]))
            for n in users:
                result = simulate_fleet(workload, fleet, users=n, requests=1500, seed=seed)
                row = {"workload": name, "users": n, "small": fleet.small, "large": fleet.large}
                load.append(row | vars(result))
        return pd.concat(fleets, ignore_index=True), pd.DataFrame(load)


def gather_confidence(params: GateAnalysisParams) -> ConfidenceData:
    """Read a run and score its drafts in every way it allows.

    Raises:
        StageError: the instrumented arm or its verdicts are missing (names the notebook to run).
    """
    recorded = recorded_run.open(params.run, tasks=params.tasks)
    frame = sample_frame.samples(recorded, [params.arm], scores=[params.score])
    data = replay_data.load(recorded)
    own = f"notebooks/study_own_results.ipynb shows what run {params.run} allows"
    if (data.agent == ABSENT).all():
        raise StageError(f"run {params.run}: no answer of an agent is recorded to compare with; {own}")
    if isinstance(params, ConfidenceParams) and not {*params.modes} & {*data.score_names}:
        raise StageError(f"run {params.run}: none of the scores {', '.join(params.modes)} is recorded; {own}")
    config = recorded.config(f"02_{params.arm}")
    k, slope = config.get("k") or DEFAULT_K, config.get("slope") or DEFAULT_SLOPE
    setting = Setting(
        params.score, k, slope, router=config.get("router", "large"), batch_size=config.get("batch_size") or 1
    )
    missing: dict[str, str] = {}
    table = pd.DataFrame({name: frame[f"score_{name}"].to_numpy(dtype=np.float64) for name in PAPER_SCORES})
    margin = np.full(len(frame), np.nan)
    evidence = {} if data.top_logprobs is None else recorded.all_evidence()
    if not evidence:
        missing["scores from evidence, other K"] = "the run kept no evidence of its drafts"
    else:
        k = min(setting.k, data.k_stored)
        table = pd.DataFrame(scores.score_answers(data.top_logprobs, data.offsets, k, slope))
        margin = scores.smallest_margin(data.top_logprobs, data.offsets)
        if frame["options"].map(len).any():
            table["options"] = scores.option_score(evidence, list(frame["id"]), list(frame["options"]))
        else:
            missing["options"] = "the options shown are not recorded (notebook 03 keeps them now)"
    table["router"] = scores.router_score(frame["router_yes_logprob"], frame["router_no_logprob"])
    if table["router"].isna().all():
        missing["router's own score"] = "the log-probabilities of its yes and no are not recorded"
    if data.cost is None:
        missing["times and speedups"] = "the run was not timed"
    if (data.agent == ABSENT).any():
        missing["some of the agent's answers"] = f"{int((data.agent == ABSENT).sum())} are not recorded"
    for name, of_id in recorded.own_scores.items():
        if name in scores.SCORES:
            raise UserError(
                f"run {params.run}: scores/{name}.csv has the name of a score of this suite; rename it"
            )
        table[name] = frame["id"].map(of_id).to_numpy(dtype=np.float64)
    table.index = frame.index
    seen, right = frame["draft_verdict"].notna(), sample_frame.right_of(frame, "draft")
    learned = scores.combination(table[seen], right[seen].to_numpy(), frame["group"][seen], seed=params.seed)
    table["combination"] = pd.Series(learned, index=frame.index[seen])
    if table["combination"].isna().all():
        missing["combination"] = FEW_TO_LEARN
    table = table.join(scores_of_layers(evidence, frame, missing, params.seed))
    table = table.dropna(axis=1, how="all")
    others = {name: table[name].to_numpy() for name in table if name not in GATE_SCORES}
    chosen_here = summary.choose_threshold(frame, params.score, params.delta_pp)
    used = summary.operating_point_in_use(params, chosen_here)
    return ConfidenceData(frame, data.with_scores(others), table, margin, setting, missing, chosen_here, used)


def scores_of_layers(
    evidence: Mapping[str, Evidence], frame: pd.DataFrame, missing: dict[str, str], seed: int = 0
) -> pd.DataFrame:
    """The scores from inside the draft model, a column each, rows as in `frame`; what is absent goes into `missing`.

    Args:
        evidence: of the drafts, by sample id.
        frame: a row per sample, as `ConfidenceData.frame`.
        missing: what is not shown -> what the run lacks for it.
        seed: of the probe's folds.
    """
    names = [name for name, score in scores.SCORES.items() if score.needs.startswith("layers")]
    if not layers.has_layers(evidence):
        missing[", ".join(names)] = layers.NO_LAYERS
        return pd.DataFrame(index=frame.index)
    ids = list(frame["id"])
    table = pd.DataFrame(layers.layer_scores(evidence, ids), index=frame.index)
    seen, right = frame["draft_verdict"].notna().to_numpy(), sample_frame.right_of(frame, "draft").to_numpy()
    states = layers.deciding_states(evidence, ids)
    table["probe"] = np.nan
    table.loc[seen, "probe"] = layers.probe(states[seen], right[seen], frame["group"][seen], seed=seed)
    if table["probe"].isna().all():
        missing["probe"] = FEW_TO_LEARN
    return table


def rule_results(points: pd.DataFrame, rules: Sequence[certificates.Rule]) -> pd.DataFrame:
    """Rules over the repeats of `certificates.certify`: a row per rule, those for contrast last.

    Columns: certified (repeats in which the risk was certified; missing for rules that bound none), repeats,
    threshold (median), target_pct, risk_pct (mean on the test halves) and risk_largest_pct (missing with one repeat),
    coverage_pct, gain_pp (accuracy less the agent's) and speedup (means).
    """
    means = ["target_pct", "risk_pct", "coverage_pct", "gain_pp", "speedup"]
    columns = ["certified", "repeats", "threshold", *means[:2], "risk_largest_pct", *means[2:]]
    if not len(points):
        return pd.DataFrame(columns=columns).rename_axis("rule")
    parts = points.assign(gain_pp=points["accuracy_pct"] - points["agent_pct"]).groupby("rule", sort=False)
    table = parts[means].mean()
    bounding = [rule.name for rule in rules if rule.risk and rule.guarantee != "uncorrected"]
    table["certified"] = parts["certified"].sum().where(table.index.isin(bounding)).astype("float64")
    table["repeats"], table["threshold"] = parts.size(), parts["threshold"].median()
    table["risk_largest_pct"] = parts["risk_pct"].max().where(table["repeats"] > 1)
    return table[columns]
