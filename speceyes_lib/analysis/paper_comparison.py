"""The data of notebook 05: reported numbers, this run and its replay, and further runs.

Nothing measured is ever filled in from the paper. What a run lacks for a figure is named in `PaperData.missing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from ..errors import StageError, UserError
from ..gating.separability import PAPER_SCORES
from ..gating.threshold import read_operating_point
from ..params import FiguresParams
from ..replay import outcomes, replay_data
from ..replay.replay_data import NotRecorded
from ..replay.settings import Setting
from ..runs import recorded_run
from ..runs.arms import ROUTERS
from ..runs.recorded_run import GATE
from ..runs.summary_file import read_summary
from . import ablations, sample_frame, summary
from .predictions import add_predictions, cost_errors
from .reported import BATCH_SIZES, KS, TABLES, read_reported
from .results import check_cells, measured_results, method_of, reported_results
from .run_result import RunResult, gate_of

AGENTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class PaperData:
    """Everything that notebook 05 shows.

    Attributes:
        params: of the notebook.
        run: None where only reported numbers are wanted.
        data: the run as replay takes it; None without the arm `collect`.
        gate: as the run was gated; without `threshold` where no arm used one.
        agent: kind of the run's agent, whose reported panel the run is drawn into.
        missing: what the run lacks, in words.
    """

    params: FiguresParams
    run: RunResult | None
    data: replay_data.ReplayData | None
    gate: dict
    agent: str
    missing: list[str] = field(default_factory=list)

    @cached_property
    def paper(self) -> dict[str, pd.DataFrame]:
        """The reported tables by name."""
        return {name: read_reported(name) for name in TABLES}

    def results(self) -> pd.DataFrame:
        """The long form behind Table 1: reported, this run (with the scores it did not gate by), further runs.

        Raises:
            ContradictionError: two of its measured cells cannot both be right (`results.check_cells`).
        """
        parts = [reported_results(self.paper["table1"])] if self.params.source != "run" else []
        if self.run is not None:
            parts += [measured_results(self.run.summary), self._other_scores()]
            parts += [measured_results(read_summary(name)) for name in self.params.more_runs]
        results = pd.concat([part for part in parts if len(part)], ignore_index=True)
        check_cells(results, self.run and self.run.arms())
        return results

    @staticmethod
    def source(sweep: pd.DataFrame) -> str:
        """Whose numbers a sweep or the results hold: measured, reported or both."""
        sources = sorted(set(sweep["source"])) if len(sweep) else []
        return "both" if len(sources) > 1 else "".join(sources)

    def _other_scores(self) -> pd.DataFrame:
        """The scores that no arm gated by, replayed, each at the threshold its validation set gives."""
        if not self._can_be_replayed:
            return pd.DataFrame()
        thresholds = self._thresholds()
        thresholds.pop(self.gate["score"], None)
        parts = []
        for score, threshold in thresholds.items():
            setting = replace(self.setting, score=score, threshold=threshold)
            try:
                parts.append(self._with_gate(setting))
            except NotRecorded as error:
                self._note([f"score {score}: {error}"])
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def _with_gate(self, setting: Setting) -> pd.DataFrame:
        """The rows of the funnel with another gate. Its times are those of the arms, by one method for all rows."""
        decided = outcomes.decisions(self.data, setting).set_index("id")["decision"]
        accepted = self.run.frame["id"].map(decided).eq("accepted")
        frame = sample_frame.with_gate(self.run.frame, "gated_otherwise", accepted)
        reference = "baseline" if "baseline" in self.run.summary["arms"] else None
        entries = summary.arm_summary(frame, "gated_otherwise", self.params.resampling, reference)
        add_predictions(entries, outcomes.replay(self.data, setting).set_index("task")["speedup"])
        replayed = {"run": self.params.run, "gate": {"score": setting.score}, "arms": {"gated": entries}}
        return measured_results(replayed, how="replayed")

    def _thresholds(self) -> dict[str, float]:
        """Score -> threshold by the rule that chose the gate's, on the set it was chosen on."""
        try:
            point = read_operating_point(self.params.threshold_from) if self.params.threshold_from else {}
            chosen_on = point.get("chosen_on", {})
            if not chosen_on.get("run"):
                raise StageError("the gate's operating point names no validation run")
            validation = recorded_run.open(chosen_on["run"], tasks=chosen_on.get("tasks", self.params.tasks))
            frame = sample_frame.samples(validation, ["collect"])
        except UserError as e:
            self._note([f"Scores other than {self.gate['score']}: no validation run to choose on ({e})."])
            return {}
        delta_pp = point.get("delta_pp", 0.0)
        return {score: summary.choose_threshold(frame, score, delta_pp).threshold for score in PAPER_SCORES}

    def threshold_sweep(self) -> pd.DataFrame:
        """Reported thresholds, and the run at the same ones and at its own."""
        thresholds = set(self.paper["ablation_threshold"]["threshold"].dropna())
        thresholds |= {float(self.gate["threshold"])} if "threshold" in self.gate else set()
        return self._sweep("ablation_threshold", "threshold", sorted(thresholds))

    def topk_sweep(self) -> pd.DataFrame:
        """Reported and measured over K: at the same threshold, and this run at the same coverage as well."""
        return self._sweep("ablation_topk", "top_k", KS, axis="k", same_coverage=True)

    def score_sweep(self) -> pd.DataFrame:
        """This run over the scores of the paper, at the same threshold and at the same coverage."""
        return self._sweep(None, "score", PAPER_SCORES, same_coverage=True)

    def batch_sweep(self) -> pd.DataFrame:
        """Reported and predicted over the batch size of router and draft."""
        return self._sweep("ablation_batch_size", "batch_size", BATCH_SIZES)

    def router_sweep(self) -> pd.DataFrame:
        """Rows of `replay.replay` for each router; the paper's router ablation is not among the reported numbers."""
        if not self._can_be_replayed:
            return pd.DataFrame()
        rows = ablations.replayed_sweep(self.data, self.setting, "router", ROUTERS)
        self._note_refusals(rows, "router")
        return rows

    def throughput(self) -> pd.DataFrame:
        """Samples per second by agents at work at once: columns method, in_flight, samples_per_s, how, off_pct.

        "measured" where an arm ran so, "predicted" by replay's cost model in between. off_pct: of the predicted
        throughput of a gated arm, each task by a model that was fitted without it (`predictions.cost_errors`).
        """
        if not self._can_be_replayed or self.data.cost is None:
            return pd.DataFrame()
        method = method_of("gated", self.gate["score"])
        rows = ablations.replayed_sweep(self.data, self.setting, "agent_batch_size", AGENTS)
        rows = rows[(rows["task"] == "pooled") & (rows["status"] == "ok")]
        rows = rows.rename(columns={"agent_batch_size": "in_flight"})
        parts = [
            rows.assign(method=name, samples_per_s=rows["n"] / rows[clock], how="predicted", off_pct=np.nan)
            for name, clock in (("baseline", "baseline_wall_s"), (method, "wall_s"))
        ]
        spent_s = (
            cost_errors(self.run.recorded, self.data).groupby("arm")[["measured_s", "predicted_s"]].sum()
        )
        off_pct = 100.0 * (spent_s["measured_s"] / spent_s["predicted_s"] - 1.0)
        for arm, entries in self.run.summary["arms"].items():
            kind, pooled = arm.removesuffix("_batched"), entries["pooled"]
            if kind in ("baseline", "gated") and pooled["wall_s"]:
                config = self.run.recorded.config(f"02_{arm if arm in self.params.arms else 'collect'}")
                point = {"method": method_of(kind, self.gate["score"]), "how": "measured"}
                point |= {"samples_per_s": pooled["n"] / pooled["wall_s"], "off_pct": off_pct.get(arm)}
                parts.append(pd.DataFrame([point | {"in_flight": config["agent_batch_size"]}]))
        table = pd.concat(parts, ignore_index=True).astype({"off_pct": "float64"})
        return table[["method", "in_flight", "samples_per_s", "how", "off_pct"]]

    def shares(self) -> dict[str, float]:
        """The fractions alpha and beta of the gated arm as it ran; empty without one."""
        pooled = self.run.summary["arms"].get("gated", {}).get("pooled", {}) if self.run else {}
        return {name: pooled[name] for name in ("alpha", "beta") if pooled.get(name) is not None}

    def _sweep(
        self,
        table: str | None,
        x: str,
        values: Sequence,
        axis: str | None = None,
        same_coverage: bool = False,
    ) -> pd.DataFrame:
        """The reported table (None: there is none) and the run over `x`, which replay may call by another `axis`."""
        reported = None
        if table and self.params.source != "run":
            reported = ablations.reported_sweep(self.paper[table], x)
        if not self._can_be_replayed:
            return ablations.joined(reported)
        axis = axis or x
        rows = ablations.replayed_sweep(self.data, self.setting, axis, values, same_coverage)
        self._note_refusals(rows, axis)
        measured = ablations.measured_sweep(rows.rename(columns={axis: x}), x, self.agent)
        return ablations.joined(reported, measured)

    @property
    def _can_be_replayed(self) -> bool:
        return self.data is not None and "threshold" in self.gate

    @property
    def setting(self) -> Setting:
        """The run's own setting, which every ablation starts from."""
        return Setting(**{name: self.gate[name] for name in GATE if name in self.gate})

    def _note_refusals(self, rows: pd.DataFrame, axis: str) -> None:
        refused = rows[rows["status"] == "refused"]
        self._note([f"{axis} {row[axis]}: {row['reason']}" for row in refused.to_dict("records")])

    def _note(self, sentences: Sequence[str]) -> None:
        """Add to `missing` what is not there yet."""
        self.missing[:] = dict.fromkeys([*self.missing, *sentences])


def gather_paper(params: FiguresParams, run: RunResult | None) -> PaperData:
    """The data for the figures; `run` as `analysis.summarised` returns it. Missing parts are named, not fatal."""
    if run is None:
        return PaperData(params, None, None, {}, "")
    gate, missing, agent = gate_of(params, run.recorded), [], "deepeyes"
    if run.data is None:
        missing.append("Ablations: they are replayed from the arm `collect`, which this run does not have.")
    if gate.get("threshold") is None:
        gate.pop("threshold", None)
        missing.append("Ablations at the run's threshold: no arm `gated` has one.")
    arms = [arm for arm in ("gated", "collect", "baseline") if arm in params.arms]
    if arms:
        agent = run.recorded.config(f"02_{arms[0]}").get("agent", agent)
    return PaperData(params, run, run.data, gate, agent, missing)
