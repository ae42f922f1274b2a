"""What the authors of each benchmark measure, with counts and intervals, from verdicts.

- V*, and a benchmark without measures of its own: accuracy per split and over all samples.
- HR-Bench (`Benchmark.cycles`): accuracy per resolution, for all, `single` and `cross`, with intervals clustered by
  question; cycle-consistent are the questions that are right in all four option orders (a failed one is not right).
- POPE (`Benchmark.yes_no`): accuracy, precision, recall and F1 with yes as positive, and the share of *predicted* yes.

Failed samples are wrong under `strict` and left out under `paper`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ..runs.arms import BATCHED
from ..stats import proportions
from ..stats.intervals import Estimate, proportion
from ..tasks.registry import BENCHMARKS
from .rules import named_option
from .verdict_frames import counted, of_source

COLUMNS = ("benchmark", "split", "measure", "value_pct", "low_pct", "high_pct", "n", "interval")
OVERALL = "overall"
ORDERS = 4  # cyclic orders of each question's options (HR-Bench)
MEASURES = {
    "accuracy": "accuracy %",
    "single": "single %",
    "cross": "cross %",
    "cycle_consistent": "all 4 orders right %",
    "precision": "precision %",
    "recall": "recall %",
    "f1": "F1 %",
    "yes_ratio": "predicted yes %",
}


def measures_of(frame: pd.DataFrame, protocol: str = "strict") -> pd.DataFrame:
    """The measures of the verdicts on one answer per sample.

    Args:
        frame: rows of `verdict_frame`, one per sample.
        protocol: "strict" counts failed samples as wrong, "paper" leaves them out.

    Returns:
        `COLUMNS`, a row per split and measure. The values are in percent. n is the denominator of the measure: samples;
        for precision those answered yes, for recall those whose truth is yes; for cycle consistency the questions that
        have answers in all orders. interval names the method of the interval.
    """
    rows = []
    for benchmark, known in BENCHMARKS.items():
        measure = _yes_no if known.yes_no else _cycles if known.cycles else _plain
        samples = frame[frame["benchmark"] == benchmark]
        parts = dict(list(samples.groupby("split", sort=False)))
        if measure is _plain and len(parts) > 1:
            parts[OVERALL] = samples
        for split, part in parts.items():
            for name, e in measure(part, protocol).items():
                rows.append((benchmark, split, name, e.value, e.low, e.high, e.n, e.method))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _accuracy(part: pd.DataFrame) -> Estimate:
    groups = part["group"].to_numpy() if part["group"].duplicated().any() else None
    return proportions.accuracy(part["verdict"] == "right", groups)


def _plain(part: pd.DataFrame, protocol: str) -> dict[str, Estimate]:
    return {"accuracy": _accuracy(counted(part, protocol))}


def _cycles(part: pd.DataFrame, protocol: str) -> dict[str, Estimate]:
    rows = counted(part, protocol)
    measured = {"accuracy": _accuracy(rows)}
    measured |= {kind: _accuracy(rows[rows["kind"] == kind]) for kind in ("single", "cross")}
    questions = (part["verdict"] == "right").groupby(part["group"]).agg(["sum", "size"])
    whole = questions[questions["size"] == ORDERS]
    return measured | {"cycle_consistent": proportion(int((whole["sum"] == ORDERS).sum()), len(whole))}


def _yes_no(part: pd.DataFrame, protocol: str) -> dict[str, Estimate]:
    rows = counted(part, protocol)
    groups = rows["group"].to_numpy() if rows["group"].duplicated().any() else None
    scores = proportions.yes_no_scores(rows["standard"], yes_no_answers(rows), groups)
    names = ("precision", "recall", "f1", "yes_ratio")
    return {"accuracy": _accuracy(rows), **{name: getattr(scores, name) for name in names}}


def yes_no_answers(rows: pd.DataFrame) -> np.ndarray:
    """The answers to yes-or-no questions: "yes", "no", or None where an answer is neither [rows].

    Args:
        rows: of `verdict_frame`. Where a rule decided, an answer is read from its words; where a model or a person
            decided, it follows from the verdict.
    """

    def read(row: tuple) -> str | None:
        if row.decided_by in ("llm", "human") and row.verdict in ("right", "wrong"):
            other = "no" if row.standard == "yes" else "yes"
            return row.standard if row.verdict == "right" else other
        return named_option(row.answer or "", None)[0] if row.verdict != "error" else None

    columns = rows[["answer", "standard", "verdict", "decided_by"]]
    return np.array([read(row) for row in columns.itertuples(index=False)], dtype=object)


def by_benchmark(by_arm: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The long forms of several arms side by side, by benchmark: a row per split and arm.

    Columns: per measure its value in percent, `<measure>_low`, `<measure>_high` and `<measure>_n`.
    """
    parts = [part.assign(arm=arm) for arm, part in by_arm.items()]
    long = pd.concat(parts or [pd.DataFrame(columns=[*COLUMNS, "arm"])], ignore_index=True)
    ends = {"value_pct": "", "low_pct": "_low", "high_pct": "_high", "n": "_n"}
    tables = {}
    for benchmark, part in long.groupby("benchmark", sort=False):
        wide = part.pivot(index=["split", "arm"], columns="measure", values=list(ends))  # noqa: PD010 (values as they are)
        wide.columns = [f"{measure}{ends[value]}" for value, measure in wide.columns]
        order = [key for key in itertools.product(part["split"].unique(), by_arm) if key in wide.index]
        tables[benchmark] = wide.loc[order]
    return tables


def benchmark_metrics(verdicts: pd.DataFrame, protocol: str = "strict") -> dict[str, pd.DataFrame]:
    """`by_benchmark` of the final answers of each arm, and under "draft_only" of the drafts of `collect`.

    Arms that only run several agents at once give the same answers and are left out.

    Args:
        verdicts: see `verdict_frames.verdicts`.
        protocol: as in `measures_of`.
    """
    arms = [arm for arm in dict.fromkeys(verdicts["arm"]) if not arm.endswith(BATCHED)]
    parts = {arm: of_source(verdicts, "final", arm) for arm in arms}
    drafts = of_source(verdicts, "draft", "collect")
    if len(drafts):
        parts["draft_only"] = drafts
    return by_benchmark({name: measures_of(part, protocol) for name, part in parts.items()})
