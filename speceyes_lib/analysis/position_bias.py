"""Does the place of an option matter? The drafts of a run again, with the same options in other orders.

V* puts the right option first in every question, so a model that favours the first place gains on it what it would
lose elsewhere. The passes differ only in the order: model, wording and samples are those of the run's stage 01,
which is the pass "as_published". Each other order is a stage 01 of a run of its own, `<run>_<order>`. Places are
counted from 0, the option shown first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..errors import ConfigError
from ..inference.stages import Progress, run_draft_stage
from ..judging.rules import judge, named_option
from ..params import DraftParams, PositionBiasParams
from ..runs import recorded_run
from ..runs.arms import DRAFT_STAGE
from ..runs.recorded_run import RecordedRun
from ..runs.stage import finish_stage
from ..stats import paired, proportions
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap
from ..tasks.sample import LETTERS, shown_as
from .redrafting import PUBLISHED, redrafting
from .summary import groups_of

STAGE = "study_position_bias"


@dataclass(frozen=True)
class OrderPasses:
    """The drafts of a run in every order: `runs` maps an order to the run that holds its drafts."""

    params: PositionBiasParams
    runs: Mapping[str, RecordedRun]

    def answers(self) -> pd.DataFrame:
        """One row per order and sample, judged in the order shown, under the protocol of the parameters.

        Columns: order, id, task, benchmark, group, options (how many), right_place, named_place (NaN: none named),
        answer, verdict, right.
        """
        rows = []
        for order, run in self.runs.items():
            for record in run.drafts().values():
                sample = shown_as(run.sample(record.id), record.options_shown)
                if sample.options is None:
                    raise ConfigError(f"tasks: {sample.task} has no options to reorder; leave it out")
                verdict = judge(sample, record.answer, self.params.protocol, record.status == "error").verdict
                named, _ = named_option(record.answer or "", sample.options)
                rows.append(
                    {
                        "order": order,
                        "id": record.id,
                        "task": sample.task,
                        "benchmark": sample.benchmark,
                        "group": sample.meta["group"],
                        "options": len(sample.options),
                        "right_place": LETTERS.index(sample.answer),
                        "named_place": named,
                        "answer": record.answer,
                        "verdict": verdict,
                        "right": verdict == "right",
                    }
                )
        return pd.DataFrame(rows).astype({"named_place": "float64"})

    def write(self, orders: pd.DataFrame, places: pd.DataFrame, figures: Sequence[Path] = ()) -> Path:
        """Write both tables and the manifest over them and the run's `figures`; returns the stage folder."""
        stages = {
            (order, t): run.stage(DRAFT_STAGE, t) for order, run in self.runs.items() for t in run.tasks
        }
        return finish_stage(
            self.params.run,
            STAGE,
            self.params.stage_config(),
            files={"by_order.csv": orders, "by_place.csv": places},
            counts=sum(len(stage.records) for stage in stages.values()),
            inputs={f"{order}/{task}": stage.sha256 for (order, task), stage in stages.items()},
            figures=figures,
        )


def run_orders(params: PositionBiasParams, progress: Progress) -> OrderPasses:
    """Draft every sample in every order that is not done yet.

    Raises:
        StageError: the run has no drafts.
        ConfigError: its drafts are not in the published order, or a task has no options.
    """
    recorded = {}
    for order in (PUBLISHED, *params.orders):
        if order != PUBLISHED:
            run_draft_stage(drafting(params, order), progress)
        recorded[order] = recorded_run.open(_run_of(params, order), tasks=params.tasks)
    return OrderPasses(params, recorded)


def drafting(params: PositionBiasParams, order: str) -> DraftParams:
    """The parameters of one pass: those of the run's own stage 01, with another order."""
    changes = params.model_dump(include={"if_changed", "option_seed"}) | {"option_order": order}
    suffix = "" if order == PUBLISHED else order
    return redrafting(params.run, params.tasks, suffix, params.draft_model, **changes)


def _run_of(params: PositionBiasParams, order: str) -> str:
    return params.run if order == PUBLISHED else f"{params.run}_{order}"


def by_order(frame: pd.DataFrame, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> pd.DataFrame:
    """Accuracy per order and task, all tasks ("all") first, and the paired difference from the published order.

    Columns: order, task, n, errors, unparsed, accuracy_pct with its interval, first_pct (share of answers that name
    the option shown first), first_right_pct (share of samples whose right option stands there), diff_pp with its
    interval, p_value (McNemar), changed (samples whose verdict differs from the published order's).
    """
    rows = []
    for task in ("all", *frame["task"].unique()):
        of_task = frame if task == "all" else frame[frame["task"] == task]
        published = of_task[of_task["order"] == PUBLISHED].set_index("id")["right"].rename("right_published")
        for order, part in of_task.groupby("order", sort=False):
            row = {
                "order": order,
                "task": task,
                "n": len(part),
                "errors": int((part["verdict"] == "error").sum()),
                "unparsed": int(part["verdict"].isin(["unparsed", "undecided"]).sum()),
                **_accuracy(part, bootstrap),
                "first_pct": 100.0 * (part["named_place"] == 0).mean(),
                "first_right_pct": 100.0 * (part["right_place"] == 0).mean(),
            }
            if order != PUBLISHED:
                both = part.set_index("id").join(published, how="inner")
                test = paired.paired_test(both["right"], both["right_published"], groups_of(both), bootstrap)
                diff = test.difference
                row |= {"diff_pp": diff.value, "diff_low_pp": diff.low, "diff_high_pp": diff.high}
                row |= {"p_value": test.p_value, "changed": test.b + test.c}
            rows.append(row)
    return pd.DataFrame(rows)


def _accuracy(part: pd.DataFrame, bootstrap: Bootstrap) -> dict[str, float]:
    share = proportions.accuracy(part["right"], groups_of(part), bootstrap)
    return {"accuracy_pct": share.value, "low_pct": share.low, "high_pct": share.high}


def by_place(frame: pd.DataFrame, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> pd.DataFrame:
    """Accuracy by the place of the right option, over the published order and the rotations.

    Together these show every question once with its right option at each place, so that places differ only in that.
    An order that a rotation repeats (two options rotated twice) counts once. Columns: options (how many; each number
    has its own rows), place ("A" is first), n (answers), accuracy_pct with its interval.
    """
    rotated = frame[frame["order"] != "shuffled"].drop_duplicates(["id", "right_place"])
    rows = [
        {"options": options, "place": LETTERS[place], "n": len(part), **_accuracy(part, bootstrap)}
        for (options, place), part in rotated.groupby(["options", "right_place"])
    ]
    return pd.DataFrame(rows)
