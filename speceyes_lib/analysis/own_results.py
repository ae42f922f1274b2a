"""A gate judged from a table of somebody's own results: ranking, certified thresholds, ledger, and what they cost.

Three columns are enough (id, is the draft right, how sure is it). What else a table lacks is absent here too, and
`missing` says which column it would need. Any run of the suite can be read in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ..gating import calibration_samples, certificates
from ..gating.gate import accepts, rejecting_threshold
from ..params import OwnResultsParams
from ..replay import outcomes, payoff, replay_data
from ..replay.replay_data import ABSENT, ReplayData
from ..replay.settings import POOLED, Setting
from ..runs import recorded_run
from ..stats import ranking
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap

# column of a table -> what cannot be shown without it
NEEDED_FOR = {
    "agent_right": "accuracy of the funnel, gained and lost samples",
    "agent_s": "speedup and break-even",
    "top_logprobs": "the suite's scores, other K and slope, the token view",
    "group": "intervals that respect dependent samples (every sample counts as independent)",
}
WITHOUT_AGENT = ("selective", "accepted_wrong", "wrong_passes")  # risks that need no verdict on the agent


@dataclass(frozen=True, eq=False)
class OwnResults:
    """A run whose gate is judged by one score.

    Attributes:
        frame: a row per judged draft: id, task, group, confidence (missing: no score), draft_right, agent_right
            (missing: not recorded), routed.
        data: the run as replay takes it.
        setting: the gate, but for its threshold.
        missing: what cannot be shown -> the column that it needs.
    """

    frame: pd.DataFrame
    data: ReplayData
    setting: Setting
    missing: Mapping[str, str]

    @property
    def has_agent(self) -> bool:
        """Whether every draft has an agent's verdict beside it."""
        return bool(len(self.frame) and self.frame["agent_right"].notna().all())

    def ranked(self, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> pd.DataFrame:
        """How well each score of the run ranks: score, n, auroc and aurc with `_low` and `_high`."""
        rows = []
        for name in self._scores():
            values, right = self._values(name), self.frame["draft_right"].to_numpy(bool)
            if np.isnan(values).all():
                continue
            groups = self.frame["group"].to_numpy()
            area = ranking.auroc(values, right, groups, bootstrap)
            curve = ranking.risk_coverage(values, right, groups, bootstrap)
            row = {"score": name, "n": curve.n}
            for measure, value in (("auroc", area), ("aurc", curve.aurc)):
                row |= {measure: value.value, f"{measure}_low": value.low, f"{measure}_high": value.high}
            rows.append(row)
        return pd.DataFrame(rows).sort_values("auroc", ascending=False, ignore_index=True)

    def risk_coverage(self) -> pd.DataFrame:
        """The curves of `ranked`: score, coverage_pct, risk_pct, aurc, n."""
        parts = []
        for name in self._scores():
            curve = ranking.risk_coverage(
                self._values(name), self.frame["draft_right"].to_numpy(bool), bootstrap=Bootstrap(draws=1)
            )
            columns = {"score": name, "coverage_pct": curve.coverage_pct, "risk_pct": curve.risk_pct}
            parts.append(pd.DataFrame(columns).assign(aurc=curve.aurc.value, n=curve.n))
        return pd.concat(parts, ignore_index=True)

    def rules(self, params: OwnResultsParams) -> list[certificates.Rule]:
        """The rules that certify a threshold; without an agent those that bound errors of the draft alone."""
        every = certificates.certification_rules(
            params.risk_target, params.loss_target, params.pass_target, params.delta, params.delta_pp
        )
        return [rule for rule in every if self.has_agent or rule.risk in WITHOUT_AGENT]

    def certified(self, params: OwnResultsParams) -> pd.DataFrame:
        """`gating.certify` over random halves, with thresholds on the score's own scale.

        The rows of the first half hold the threshold to use. Scores outside [0, 1] are ranked first; thresholds are
        then scores of the run. Without an agent the accuracies and rules that need it are left out.
        """
        values = self.frame["confidence"].to_numpy(float)
        scored = ~np.isnan(values)
        outside = bool(((values[scored] < 0) | (values[scored] > 1)).any())
        distinct, place = np.unique(values[scored], return_inverse=True)
        mapped = values.copy()
        if outside:
            mapped[scored] = (place + 1) / (len(distinct) + 1)
        agent = self.frame["agent_right"].fillna(False).astype(bool)
        samples = calibration_samples.gate_samples(
            mapped,
            self.frame["draft_right"].astype(bool),
            agent,
            routed=self.frame["routed"],
            groups=self.frame["group"],
            strata=self.frame["task"],
            times=self._times(),
        )
        points = certificates.certify(samples, self.rules(params), params.repeats, params.seed)
        if not self.has_agent:
            points = points[points["rule"].isin([rule.name for rule in self.rules(params)])]
            points = points.assign(accuracy_pct=np.nan, agent_pct=np.nan, regret_pct=np.nan)
        if outside:  # the highest score that the threshold rejects
            below = np.searchsorted(
                (np.arange(len(distinct)) + 1) / (len(distinct) + 1), points["threshold"], side="right"
            )
            lowest = rejecting_threshold(distinct[np.maximum(below - 1, 0)])
            points = points.assign(threshold=np.where(below > 0, lowest, -np.inf))
        return points.reset_index(drop=True)

    def sentences(self, params: OwnResultsParams) -> list[str]:
        """How well the score ranks, and the threshold that is certified, for people."""
        area = ranking.auroc(
            self.frame["confidence"].to_numpy(float),
            self.frame["draft_right"].to_numpy(bool),
            self.frame["group"].to_numpy(),
        )
        points = self.certified(params)
        chosen = points[points["repeat"] == 0].set_index("rule").loc["selective"]
        target = f"at most {params.risk_target:.0%} wrong among accepted drafts"
        sentences = [
            f"{self.setting.score}: AUROC {area.value:.3f} [{area.low:.3f}, {area.high:.3f}], n={area.n}"
        ]
        if not chosen["certified"]:
            return [*sentences, f"{target}: not certified, because {chosen['reason']}"]
        how = f"with probability {1 - params.delta:.0%}, on {chosen['n_calibration']} samples"
        coverage = f"it accepts {chosen['coverage_pct']:.1f} % of {chosen['n_test']} others"
        return [*sentences, f"{target}: certified above {chosen['threshold']:.6g} ({how}; {coverage})"]

    def ledger(self, thresholds: Mapping[str, float]) -> pd.DataFrame:
        """What thresholds do, a row each.

        Columns: threshold, accepted, accepted_pct, wrong (among them), risk_pct, missed (right and not accepted); with
        an agent also gained, lost, accuracy_pct, agent_pct; with seconds the predicted speedup.
        """
        right, agent = self.frame["draft_right"].to_numpy(bool), self.frame["agent_right"]
        rows = {}
        for name, threshold in thresholds.items():
            taken = accepts(self.frame["confidence"], threshold) & ~self.frame["routed"].to_numpy(bool)
            wrong, n = int((taken & ~right).sum()), int(taken.sum())
            row = {"threshold": threshold, "accepted": n, "accepted_pct": 100 * taken.mean(), "wrong": wrong}
            row |= {"risk_pct": 100 * wrong / n if n else np.nan, "missed": int((~taken & right).sum())}
            if self.has_agent:
                agents = agent.to_numpy(bool)
                row |= {
                    "gained": int((taken & right & ~agents).sum()),
                    "lost": int((taken & ~right & agents).sum()),
                    "accuracy_pct": 100 * np.where(taken, right, agents).mean(),
                    "agent_pct": 100 * agents.mean(),
                }
            if self.data.cost is not None and self.has_agent:
                at = float(np.clip(threshold, *self._ends))
                replayed = outcomes.replay(self.data, [replace(self.setting, threshold=at)])
                row["speedup"] = float(replayed.loc[replayed["task"] == POOLED, "speedup"].iloc[0])
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("gate")

    def break_even(self, threshold: float) -> pd.DataFrame:
        """`payoff.break_even` at a threshold; without rows where seconds or the agent are not recorded."""
        if self.data.cost is None or not self.has_agent:
            return pd.DataFrame()
        return payoff.break_even(payoff.phase_seconds(self.data, replace(self.setting, threshold=threshold)))

    def _scores(self) -> Sequence[str]:
        return dict.fromkeys((self.setting.score, *self.data.extra, *self.data.recorded))

    def _values(self, name: str) -> np.ndarray:
        of_id = dict(
            zip(self.data.ids, self.data.score(name, self.setting.k, self.setting.slope), strict=True)
        )
        return self.frame["id"].map(of_id).to_numpy(float)

    @property
    def _ends(self) -> tuple[float, float]:
        """Thresholds that accept every draft with a score, and none."""
        values = self.frame["confidence"].dropna()
        return (float(values.min()) - 1.0, float(values.max()) + 1.0) if len(values) else (0.0, 1.0)

    def _times(self) -> tuple[np.ndarray, ...] | None:
        if self.data.cost is None or not self.has_agent:
            return None
        everything, nothing = (
            outcomes.decisions(self.data, replace(self.setting, threshold=at))
            .set_index("id")
            .loc[self.frame["id"]]
            for at in self._ends
        )
        columns = (everything["wall_s"], nothing["wall_s"], nothing["baseline_wall_s"])
        return tuple(column.to_numpy(float) for column in columns)


def gather_own_results(params: OwnResultsParams) -> OwnResults:
    """Read a run, imported or of the suite, as results whose gate is judged.

    Raises:
        StageError: the run has no judged draft.
        NotRecorded: it has no such score.
    """
    recorded = recorded_run.open(params.run, tasks=params.tasks)
    data = replay_data.load(recorded)
    config = recorded.config(f"02_{params.arm}")
    router = config.get("router", "none")
    k = min(config.get("k") or replay_data.DEFAULT_K, data.k_stored or replay_data.DEFAULT_K)
    slope, size = config.get("slope") or replay_data.DEFAULT_SLOPE, config.get("batch_size") or 1
    setting = Setting(params.score, k, slope, router=router, batch_size=size)
    known = data.draft != ABSENT
    frame = pd.DataFrame({"id": data.ids, "task": data.tasks, "group": data.groups})
    frame["confidence"] = data.score(params.score, setting.k, setting.slope)
    frame["draft_right"] = data.draft_right
    frame["agent_right"] = pd.array(data.agent_right, dtype="boolean")
    frame.loc[data.agent == ABSENT, "agent_right"] = pd.NA
    frame["routed"] = data.routed[router] == 1 if router in data.routed else False
    frame = frame[known].reset_index(drop=True)
    present = {
        "agent_right": frame["agent_right"].notna().all(),
        "agent_s": data.cost is not None,
        "top_logprobs": data.k_stored > 0,
        "group": frame["group"].duplicated().any(),
    }
    missing = {what: column for column, what in NEEDED_FOR.items() if not present[column]}
    return OwnResults(frame, data, setting, missing)
