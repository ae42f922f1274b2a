"""Self-consistency: the same question drafted twice, its options rotated or its picture mirrored, and what that buys.

The first draft is the run's own. The second is a stage 01 of a run of its own, `<run>_<way>`, which differs only in
what is shown. Two drafts agree when they name the same option (its text, not its letter). A second draft takes as long
as a first, so gates with two are compared at equal seconds, where the gate with one may accept fewer drafts instead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..gating.calibration_samples import GateSamples
from ..gating.gate import NOTHING, accepts, candidate_thresholds
from ..inference.stages import run_draft_stage
from ..judging.rules import named_option
from ..params import SecondDraftParams
from ..runs import recorded_run
from ..runs.arms import DRAFT_STAGE
from ..runs.recorded_run import RecordedRun
from ..runs.stage import finish_stage
from ..stats.paired import paired_test
from ..tasks.sample import shown_as
from .confidence_data import ConfidenceData, gather_confidence
from .redrafting import redrafting
from .score_comparison import compare_scores

STAGE = "study_second_draft"
Progress = Callable[..., None]
MIRRORED = "mirrored"
_SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)  # what such words mean changes in a mirror


@dataclass(frozen=True, eq=False)
class SecondDrafts:
    """A run and its second drafts.

    Attributes:
        params: of the notebook.
        run: the run.
        frame: a row per way and sample with both drafts: way, id, task, group, first and second (the option named, None
            where none is), agree, right (of the first draft), score and second_score (as the run is gated), extra_s
            (what a second draft costs: the seconds of the first, on the machine that ran the run; NaN: not timed).
        runs: way -> the run that holds its drafts.
        left_out: way -> samples that have no such second draft (no options to rotate, or sides that a mirror swaps).
    """

    params: SecondDraftParams
    run: ConfidenceData
    frame: pd.DataFrame
    runs: Mapping[str, RecordedRun]
    left_out: Mapping[str, int]

    def agreement(self) -> pd.DataFrame:
        """A row per way: n, left_out, agree_pct, right_pct of the first drafts where they agree and where not."""
        rows = []
        for way, part in self.frame.groupby("way", sort=False):
            agree = part["agree"]
            rows.append(
                {
                    "way": way,
                    "n": len(part),
                    "left_out": self.left_out[way],
                    "agree_pct": 100 * agree.mean(),
                    "right_if_agree_pct": 100 * part.loc[agree, "right"].mean(),
                    "n_disagree": int((~agree).sum()),
                    "right_if_not_pct": 100 * part.loc[~agree, "right"].mean(),
                    "extra_ms": 1000 * part["extra_s"].mean(),
                }
            )
        return pd.DataFrame(rows)

    def compared(self, coverages: Sequence[float]) -> pd.DataFrame:
        """`compare_scores` of `gates`, a block of rows per way (column `way`)."""
        parts = []
        for way, part in self.frame.groupby("way", sort=False):
            table = pd.DataFrame(gates(part), index=part.index)
            compared = compare_scores(
                table, part["right"], part["group"], coverages=coverages, reference="one draft",
                bootstrap=self.params.resampling,
            )  # fmt: skip
            parts.append(compared.assign(way=way))
        return pd.concat(parts, ignore_index=True)

    def at_equal_seconds(self) -> pd.DataFrame:
        """Gates with two drafts at each accepted share, beside the gate with one draft that takes as many seconds.

        Only the samples that have a second draft, under the run's router. The gate with one draft may take at most as
        long: what it does not spend on second drafts, it spends on more answers of the agent.

        Returns:
            way, gate, accepted_pct, seconds (a sample, predicted), accuracy_pct, one_accepted_pct, one_accuracy_pct,
            diff_pp with diff_low_pp and diff_high_pp (paired, the gate with two less that with one), n. Empty where the
            run was not timed.
        """
        rows = []
        for way, part in self.frame.groupby("way", sort=False):
            samples, scores, extra_s = self._samples(part)
            if samples.accepted_s is None:
                continue
            one = _curve(replace(samples, score=scores.pop("one draft")), np.zeros(len(samples)))
            for gate, score in scores.items():
                two = _curve(replace(samples, score=score), extra_s)
                for share in self.params.shares:
                    at = two["accepted"].sub(share).abs().idxmin()
                    able = one[one["seconds"] <= two.loc[at, "seconds"] + 1e-9]
                    if not len(able):
                        continue
                    best = able["seconds"].idxmax()
                    test = paired_test(
                        two.loc[at, "right"], one.loc[best, "right"], samples.groups, self.params.resampling
                    )
                    rows.append(
                        {
                            "way": way,
                            "gate": gate,
                            "accepted_pct": 100 * two.loc[at, "accepted"],
                            "seconds": two.loc[at, "seconds"],
                            "accuracy_pct": 100 * two.loc[at, "accuracy"],
                            "one_accepted_pct": 100 * one.loc[best, "accepted"],
                            "one_accuracy_pct": 100 * one.loc[best, "accuracy"],
                            "diff_pp": test.difference.value,
                            "diff_low_pp": test.difference.low,
                            "diff_high_pp": test.difference.high,
                            "n": len(samples),
                        }
                    )
        return pd.DataFrame(rows)

    def _samples(self, part: pd.DataFrame) -> tuple[GateSamples, dict[str, NDArray], NDArray]:
        """The samples of one way, the scores of each gate there, and the seconds of each second draft."""
        ids = self.run.frame.loc[self.run.certifiable, "id"]
        by_id = part.assign(**gates(part)).set_index("id")
        kept = ids.isin(by_id.index).to_numpy()
        samples = self.run.to_certify().take(kept)
        by_id = by_id.loc[ids[kept]]
        drafted = ~np.isnan(samples.score)  # a routed sample has no score, and no second draft
        scores = {name: np.where(drafted, by_id[name].to_numpy(), np.nan) for name in gates(part)}
        return samples, scores, np.where(drafted, by_id["extra_s"].to_numpy(), 0.0)

    def write(self, tables: Mapping[str, pd.DataFrame], figures: Sequence[Path] = ()) -> Path:
        """Write the tables, by file name, and the manifest over them and the run's `figures`; the stage's folder."""
        return finish_stage(
            self.params.run,
            STAGE,
            self.params.stage_config(),
            files=tables,
            counts=len(self.frame),
            inputs={
                f"{way}/{task}": recorded.stage(DRAFT_STAGE, task).sha256
                for way, recorded in self.runs.items()
                for task in recorded.tasks
            },
            figures=figures,
        )


def gates(part: pd.DataFrame) -> dict[str, NDArray[np.float64]]:
    """What gates by one and by two drafts go by: name -> float64 [rows], nan without a score.

    one draft: its score. agreement: the first draft's score where both name the same option, otherwise 0. both scores:
    the smaller of the two where they name the same, otherwise 0.
    """
    first, second, agree = (part[name].to_numpy() for name in ("score", "second_score", "agree"))
    known = np.isnan(first.astype(float))
    return {
        "one draft": first.astype(float),
        "agreement": np.where(known, np.nan, np.where(agree, first, 0.0)).astype(float),
        "both scores": np.where(known, np.nan, np.where(agree, np.fmin(first, second), 0.0)).astype(float),
    }


def _curve(samples: GateSamples, extra_s: NDArray[np.float64]) -> pd.DataFrame:
    """A row per threshold that decides differently: accepted (share), seconds (a sample), accuracy, right [n]."""
    rows = []
    for threshold in candidate_thresholds(samples.score):
        accepted = accepts(samples.score, min(float(threshold), NOTHING))
        right = np.where(accepted, samples.draft_right, samples.agent_right)
        spent_s = np.where(accepted, samples.accepted_s, samples.rejected_s) + extra_s
        rows.append((accepted.mean(), spent_s.mean(), right.mean(), right))
    return pd.DataFrame(rows, columns=["accepted", "seconds", "accuracy", "right"])


def draft_twice(params: SecondDraftParams, progress: Progress) -> SecondDrafts:
    """The run with a second draft of every sample in every way of the parameters; what is finished is reused.

    Raises:
        StageError: the run has no drafts, no instrumented arm or no verdicts.
        ConfigError: its drafts were imported.
    """
    run = gather_confidence(params)
    recorded = recorded_run.open(params.run, tasks=params.tasks)
    parts, runs, left_out = [], {}, {}
    for way in params.ways:
        changes = {MIRRORED: True} if way == MIRRORED else {"option_order": way}
        drafting = redrafting(params.run, recorded.tasks, way, if_changed=params.if_changed, **changes)
        run_draft_stage(drafting, progress)
        runs[way] = recorded_run.open(drafting.run, tasks=recorded.tasks)
        both = _both(run, recorded, runs[way], way)
        left_out[way] = int(run.drafted.sum()) - len(both)
        parts.append(both)
    return SecondDrafts(params, run, pd.concat(parts, ignore_index=True), runs, left_out)


def _both(run: ConfidenceData, first: RecordedRun, second: RecordedRun, way: str) -> pd.DataFrame:
    """The rows of `SecondDrafts.frame` of one way."""
    firsts, seconds = first.drafts(), second.drafts()
    frame = run.frame.assign(right=run.right, score=run.scores[run.setting.score])[run.drafted]
    rows = []
    for row in frame.itertuples():
        sample, draft = first.sample(row.id), seconds[row.id]
        if sample is None or (way != MIRRORED and sample.options is None):
            continue
        if way == MIRRORED and _SIDES.search(" ".join([sample.question, *(sample.options or ())])):
            continue
        names = [_named(shown_as(sample, d.options_shown), d.answer) for d in (firsts[row.id], draft)]
        rows.append(
            {
                "way": way,
                "id": row.id,
                "task": row.task,
                "group": row.group,
                "first": names[0],
                "second": names[1],
                "agree": names[0] is not None and names[0] == names[1],
                "right": row.right,
                "score": row.score,
                "second_score": (draft.scores or {}).get(run.setting.score, np.nan),
                "extra_s": firsts[row.id].wall_s,
            }
        )
    columns = [
        "way",
        "id",
        "task",
        "group",
        "first",
        "second",
        "agree",
        "right",
        "score",
        "second_score",
        "extra_s",
    ]
    return pd.DataFrame(rows, columns=columns)


def _named(sample: object, answer: str | None) -> str | None:
    """The text of the option that an answer names for certain, or yes or no; None: none."""
    named, _ = named_option(answer or "", sample.options)
    return named if named is None or sample.options is None else sample.options[named]
