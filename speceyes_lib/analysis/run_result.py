"""A finished run for notebook 05: as it was recorded, as a row per sample, and summed up."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..gating.threshold import read_operating_point
from ..params import FiguresParams
from ..replay import replay_data
from ..replay.replay_data import ReplayData
from ..runs import recorded_run
from ..runs.recorded_run import GATE, RecordedRun
from ..runs.records import PHASES
from ..stats import proportions
from . import results, sample_frame
from .clock import clock_check
from .predictions import predict_speedups
from .sample_frame import arm, right_of
from .summary import groups_of, summarise


@dataclass(frozen=True)
class RunResult:
    """A finished run: as it was recorded, as a row per sample, and the content of its `summary.json`.

    `data` is the run as replay takes it; None without the arm `collect`.
    """

    recorded: RecordedRun
    frame: pd.DataFrame
    summary: dict
    data: ReplayData | None = None

    def arms(self) -> pd.DataFrame:
        """`results.arm_results` over all samples."""
        return results.arm_results(self.summary)

    def comparisons(self) -> pd.DataFrame:
        """Paired differences in accuracy: a row per comparison and split, "all" first.

        Index: first, second (methods), split. Columns: diff_pp with low_pp and high_pp, only_first and only_second
        (samples that only one of them got right), p_value (McNemar), n.
        """
        score, names = results.score_of(self.summary), {"b": "only_first", "c": "only_second"}
        keys, rows = [], []
        for comparison, entries in self.summary["comparisons"].items():
            methods = [results.method_of(arm, score) for arm in comparison.split("_vs_")]
            for split, entry in {"all": entries["pooled"], **entries["splits"]}.items():
                keys.append((*methods, split))
                rows.append({names.get(key, key): value for key, value in entry.items()})
        index = pd.MultiIndex.from_tuples(keys, names=["first", "second", "split"]) if rows else None
        columns = ["diff_pp", "low_pp", "high_pp", "only_first", "only_second", "p_value", "n"]
        return pd.DataFrame(rows, index=index, columns=columns, dtype="float64")

    def first_look(self) -> pd.DataFrame:
        """The agent with its tool against its forced first look: a row for hard, easy and all samples.

        Columns: n, first_look_pct and zoom_pct with their intervals, diff_pp, low_pp, high_pp and p_value of the gain.
        """
        entries = {name: self.summary["first_look"][name] for name in ("hard", "easy", "all")}
        rows = {name: entry["gain"] | entry for name, entry in entries.items()}
        columns = [f"{who}{end}_pct" for who in ("first_look", "zoom") for end in ("", "_low", "_high")]
        columns = ["n", *columns, "diff_pp", "low_pp", "high_pp", "p_value"]
        table = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)
        return table.astype("float64").rename_axis("samples")

    def first_look_by_size(self) -> pd.DataFrame:
        """Accuracy of the agent with its tool and at its forced first look, by size of the target.

        There are at most three equally filled bins at each side of the border between hard and easy. Columns: who
        ("first_look", "zoom"), low and high (edges), accuracy_pct, low_pct, high_pct, n; no row where n is 0.
        """
        frame, hard_below = self.frame, self.summary["first_look"]["hard_below"]
        looked = frame[frame["first_look_verdict"].notna() & frame["target_fraction"].notna()]
        size = looked["target_fraction"]
        edges = {hard_below}
        for side in (size[size < hard_below], size[size >= hard_below]):
            if len(side):
                cuts = np.quantile(side, np.linspace(0, 1, 4))
                edges |= {round(float(c), 2) for c in cuts[1:-1]}
                below = side.iloc[0] < hard_below
                edges.add(float(np.floor(cuts[0] * 100) / 100 if below else np.ceil(cuts[-1] * 100) / 100))
        bounds = sorted(edges)
        rows = []
        for low, high in itertools.pairwise(bounds):
            part = looked[(size >= low) & ((size < high) | (high == bounds[-1]) & (size <= high))]
            for who, answer in (("first_look", "first_look"), ("zoom", "agent")):
                share = proportions.accuracy(right_of(part, answer), groups_of(part))
                rows.append((who, low, high, share.value, share.low, share.high, share.n))
        columns = ["who", "low", "high", "accuracy_pct", "low_pct", "high_pct", "n"]
        table = pd.DataFrame(rows, columns=columns)
        return table[table["n"] > 0].reset_index(drop=True)

    def phase_times(self) -> pd.DataFrame:
        """Mean milliseconds per sample of every phase: columns method, phase, ms. Arms without times are left out."""
        score = results.score_of(self.summary)
        parts = {results.method_of(name, score): arm(self.frame, name) for name in self.summary["arms"]}
        rows = [
            (method, phase, 1000.0 * float(part[phase].mean()))
            for method, part in parts.items()
            if part["wall_s"].notna().any()
            for phase in PHASES
        ]
        return pd.DataFrame(rows, columns=["method", "phase", "ms"])


def summarised(params: FiguresParams) -> RunResult | None:
    """Read and summarise the run; None where only reported numbers are wanted."""
    if params.source == "reported":
        return None
    recorded = recorded_run.open(params.run, tasks=params.tasks)
    frame = sample_frame.samples(recorded, params.arms)
    recorded.check_comparable(params.arms)
    summary = summarise(
        frame,
        run=params.run,
        gate=gate_of(params, recorded),
        clock=clock_check(recorded, params.arms),
        hard_below=params.hard_below,
        bootstrap=params.resampling,
    )
    data = replay_data.load(recorded) if "collect" in params.arms else None
    if data is not None:
        predict_speedups(summary, data, recorded, params.arms)
    return RunResult(recorded, frame, summary, data)


def gate_of(params: FiguresParams, recorded: RecordedRun) -> dict[str, Any]:
    """The gate as the run's gated arm used it, and where its threshold is from; `score` alone without that arm."""
    if "gated" not in params.arms:
        return {"score": params.score}
    config = recorded.config("02_gated")
    gate = {name: config.get(name) for name in GATE}
    if params.threshold_from:
        point = read_operating_point(params.threshold_from)
        if point["threshold"] == gate["threshold"]:  # else the run was given a threshold of its own
            gate |= {"rule": point.get("rule"), "chosen_on": point.get("chosen_on", {}).get("run")}
    return gate
