"""What notebook 05 gathers for the paper's tables and figures: reported numbers, the run's replay, other runs.

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
from ..replay.settings import Setting
from ..runs import recorded_run
from ..runs.arms import ROUTERS
from ..runs.summary_file import read_summary
from . import ablations, sample_frame, summary
from .reported import BATCH_SIZES, KS, TABLES, read_reported
from .results import measured_results, method_of, reported_results
from .summary import RunResult, gate_of

AGENTS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True)
class PaperData:
    """Everything shown, by source. `run` is None where only reported numbers are asked for."""

    params: FiguresParams
    run: RunResult | None
    data: replay_data.ReplayData | None
    gate: dict
    agent: str  # the format of the run's agent: the reported panel it is drawn into
    missing: list[str] = field(default_factory=list)

    @cached_property
    def paper(self) -> dict[str, pd.DataFrame]:
        """The reported tables by name."""
        return {name: read_reported(name) for name in TABLES}

    @property
    def wants_reported(self) -> bool:
        return self.params.source != "run"

    # -------------------------------------------------------------- tables
    def results(self) -> pd.DataFrame:
        """The long form behind Table 1: reported, this run (with the scores it did not gate by), further runs."""
        parts = [reported_results(self.paper["table1"])] if self.wants_reported else []
        if self.run is not None:
            parts += [measured_results(self.run.summary), self._other_scores()]
            parts += [measured_results(read_summary(name)) for name in self.params.more_runs]
        parts = [part for part in parts if len(part)]
        return pd.concat(parts, ignore_index=True)

    def _other_scores(self) -> pd.DataFrame:
        """The confidence scores that no arm gated by, replayed; each at the threshold its validation set gives."""
        if self.data is None or "threshold" not in self.gate:
            return pd.DataFrame()
        thresholds = self._thresholds()
        here = [mode for mode in PAPER_SCORES if mode != self.gate["score"] and mode in thresholds]
        if not here:
            return pd.DataFrame()
        settings = [replace(self.setting, score=mode, threshold=thresholds[mode]) for mode in here]
        rows = outcomes.replay(self.data, settings)
        self._note_refusals(rows, "score")
        rows = rows[(rows["status"] == "ok") & (rows["task"] != "pooled")]
        return pd.DataFrame(
            {
                "source": "measured",
                "agent": self.params.run,
                "method": "speceyes_" + rows["score"],
                "split": rows["task"],
                **{
                    c: rows[c]
                    for c in ("accuracy_pct", "accuracy_low_pct", "accuracy_high_pct", "n", "speedup")
                },
                "speedup_low": np.nan,
                "speedup_high": np.nan,
                "how": "replayed",
            }
        ).reset_index(drop=True)

    def _thresholds(self) -> dict[str, float]:
        """mode -> threshold by the rule that chose the gate's, on the set it was chosen on."""
        try:
            point = read_operating_point(self.params.threshold_from) if self.params.threshold_from else {}
            chosen_on = point.get("chosen_on", {})
            if not chosen_on.get("run"):
                raise StageError("the gate's operating point names no validation run")
            validation = recorded_run.open(chosen_on["run"], tasks=chosen_on.get("tasks", self.params.tasks))
            frame = sample_frame.samples(validation, ["collect"])
        except UserError as e:
            self._tell([f"Scores other than {self.gate['score']}: no validation run to choose on ({e})."])
            return {}
        delta_pp = point.get("delta_pp", 0.0)
        return {mode: summary.choose_threshold(frame, mode, delta_pp).threshold for mode in PAPER_SCORES}

    # -------------------------------------------------------------- figures
    def threshold_sweep(self) -> pd.DataFrame:
        """Reported thresholds, and the run at the same ones and at its own."""
        asked = set(self.paper["ablation_threshold"]["threshold"].dropna())
        asked |= {float(self.gate["threshold"])} if self.gate.get("threshold") is not None else set()
        return self._sweep("ablation_threshold", "threshold", sorted(asked))

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
        if self.data is None or "threshold" not in self.gate:
            return pd.DataFrame()
        rows = ablations.replayed_sweep(self.data, self.setting, "router", ROUTERS)
        self._note_refusals(rows, "router")
        return rows

    def throughput(self) -> pd.DataFrame:
        """Samples per second by agents at work at once: columns method, in_flight, samples_per_s, how.

        "measured" where an arm ran so, "predicted" by replay's cost model in between.
        """
        if self.data is None or self.data.cost is None or "threshold" not in self.gate:
            return pd.DataFrame()
        method = method_of("gated", self.gate["score"])
        rows = ablations.replayed_sweep(self.data, self.setting, "agent_batch_size", AGENTS)
        rows = rows[(rows["task"] == "pooled") & (rows["status"] == "ok")]
        parts = [
            rows.assign(method=name, samples_per_s=rows["n"] / rows[clock], how="predicted")
            for name, clock in (("baseline", "baseline_wall_s"), (method, "wall_s"))
        ]
        table = pd.concat(parts).rename(columns={"agent_batch_size": "in_flight"})
        measured = []
        for arm, told in self.run.summary["arms"].items():
            base = arm.removesuffix("_batched")
            if base in ("baseline", "gated") and told["pooled"]["wall_s"]:
                stage = arm if arm in self.params.arms else "collect"
                config = self.run.recorded.config(f"02_{stage}")
                measured.append(
                    {
                        "method": "baseline" if base == "baseline" else method,
                        "in_flight": config["agent_batch_size"],
                        "samples_per_s": told["pooled"]["n"] / told["pooled"]["wall_s"],
                        "how": "measured",
                    }
                )
        columns = ["method", "in_flight", "samples_per_s", "how"]
        return pd.concat([table[columns], pd.DataFrame(measured, columns=columns)], ignore_index=True)

    def shares(self) -> dict[str, float]:
        """alpha and beta of the gated arm as it ran; empty without one."""
        pooled = self.run.summary["arms"].get("gated", {}).get("pooled", {}) if self.run else {}
        return {name: pooled[name] for name in ("alpha", "beta") if pooled.get(name) is not None}

    @property
    def shares_source(self) -> str:
        """Whose numbers the drawing of the method shows."""
        return "reported" if self.run is None else "measured"

    def shares_table(self) -> pd.DataFrame:
        """The same as a table, to be stored beside the drawing."""
        return pd.DataFrame(list(self.shares().items()), columns=["name", "fraction"])

    @staticmethod
    def source(sweep: pd.DataFrame) -> str:
        """Whose numbers a sweep or the results hold, as figures say it."""
        there = sorted(set(sweep["source"])) if len(sweep) else []
        return "both" if len(there) > 1 else "".join(there)

    def _sweep(
        self,
        table: str | None,
        x: str,
        values: Sequence[object],
        axis: str | None = None,
        same_coverage: bool = False,
    ) -> pd.DataFrame:
        """The reported table (None: there is none) and the run over `x`, which replay may call by another `axis`."""
        given = None
        if table and self.wants_reported:
            given = ablations.reported_sweep(self.paper[table], x)
        if self.data is None or "threshold" not in self.gate:
            return ablations.joined(given)
        axis = axis or x
        rows = ablations.replayed_sweep(self.data, self.setting, axis, values, same_coverage)
        self._note_refusals(rows, axis)
        rows = rows.rename(columns={axis: x})
        return ablations.joined(given, ablations.measured_sweep(rows, x, self.agent))

    @property
    def setting(self) -> Setting:
        """The run's own setting, which every ablation starts from."""
        names = ("score", "k", "slope", "router", "threshold")
        return Setting(**{name: self.gate[name] for name in names if name in self.gate})

    def _note_refusals(self, rows: pd.DataFrame, what: str) -> None:
        refused = rows[rows["status"] == "refused"].drop_duplicates([what, "reason"])
        values = zip(refused[what], refused["reason"], strict=True)
        self._tell([f"{what} {value}: {reason}" for value, reason in values])

    def _tell(self, sentences: Sequence[str]) -> None:
        """Add to `missing` what it does not say yet: whoever asks twice is told once."""
        self.missing[:] = dict.fromkeys([*self.missing, *sentences])


def gather_paper(params: FiguresParams, run: RunResult | None) -> PaperData:
    """What there is for the figures: `run` as `analysis.summarised` gives it. Missing parts are named, not fatal."""
    if run is None:
        return PaperData(params, None, None, {}, "")
    gate, missing, data, agent = gate_of(params, run.recorded), [], None, "deepeyes"
    if "collect" in params.arms:
        data = replay_data.load(run.recorded)
    else:
        missing.append("Ablations: they are replayed from the arm `collect`, which this run does not have.")
    if gate.get("threshold") is None:
        gate.pop("threshold", None)
        missing.append("Ablations at the run's threshold: no arm `gated` has one.")
    arms = [arm for arm in ("gated", "collect", "baseline") if arm in params.arms]
    if arms:
        agent = run.recorded.config(f"02_{arms[0]}").get("agent", agent)
    return PaperData(params, run, data, gate, agent, missing)
