"""Verdicts as frames: a row per judged answer, and how far rule, model and people agree.

Columns of `verdict_frame` (`COLUMNS`): the sample and its group, kind, question and options, as in
`runs.records.JudgedRecord`; arm, source (which of its answers), answer and standard answer; verdict, decided_by and
rule (the rule that read the answer); by_rule, by_model and by_human, the verdict of each (None where it gave none); and
unreviewed, the verdict without the human checks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pandas as pd

from ..runs.recorded_run import RecordedRun
from ..runs.records import JudgedRecord
from .llm import read_judgement

COLUMNS = (
    *("id", "task", "benchmark", "split", "group", "kind", "question", "options"),
    *("arm", "source", "answer", "standard", "verdict", "decided_by", "rule"),
    *("by_rule", "by_model", "by_human", "unreviewed"),
)
RATERS = {"by_rule": "rule", "by_model": "model", "by_human": "human"}


def verdict_frame(records: Iterable[JudgedRecord], arm: str = "", source: str | None = None) -> pd.DataFrame:
    """The verdicts of judged records, a row per answer, with the module's columns.

    Args:
        records: of one arm.
        arm: its name, for the column.
        source: which answers: "final", "draft", "agent" or "first_look"; None: all.
    """
    rows = []
    for record in records:
        benchmark, split, _ = record.id.split("/", 2)
        place = (record.id, f"{benchmark}/{split}", benchmark, split)
        for v in record.verdicts:
            by_model = v.judge.verdict if v.judge and v.judge.failure is None else None
            by_human = v.human.verdict if v.human else None
            sample = (*place, record.group, record.kind, record.question, record.options)
            verdict = (arm, v.source, v.answer, v.standard, v.verdict, v.decided_by, v.rule)
            rows.append((*sample, *verdict, v.by_rule, by_model, by_human, v.unreviewed))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame if source is None else of_source(frame, source).reset_index(drop=True)


def verdicts(recorded: RecordedRun, arms: Sequence[str] = (), source: str | None = None) -> pd.DataFrame:
    """`verdict_frame` of a run; `attrs["protocol"]` is the protocol of its verdicts.

    Args:
        recorded: the run.
        arms: none named: all that the run has.
        source: as in `verdict_frame`.
    """
    arms = arms or recorded.arms
    parts = [verdict_frame(recorded.judged(arm).values(), arm, source) for arm in arms]
    frame = pd.concat(parts, ignore_index=True) if parts else verdict_frame(())
    frame.attrs["protocol"] = recorded.protocol_of(arms)
    return frame


def counted(frame: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """The rows that count in the denominator: all under `strict`; `paper` leaves failed samples out."""
    return frame[frame["verdict"] != "error"] if protocol == "paper" else frame


def of_source(frame: pd.DataFrame, source: str = "final", arm: str | None = None) -> pd.DataFrame:
    """The rows of one source ("final", "draft", "agent", "first_look"), of one arm or of all."""
    rows = frame["source"] == source
    return frame[rows if arm is None else rows & (frame["arm"] == arm)]


# ------------------------------------------------------------------ agreement


def agreement(frame: pd.DataFrame) -> pd.DataFrame:
    """Agreement of each two raters (rule, model, people) on the answers that both called right or wrong.

    Args:
        frame: see `verdict_frame`.

    Returns:
        A row per pair of raters: n (answers), agree_pct (None for n = 0), kappa (Cohen's; None where both raters gave
        one and the same verdict to all answers), and the counts right_right, right_wrong, wrong_right, wrong_wrong
        (the first rater's verdict first).

    Source: Cohen (1960), A coefficient of agreement for nominal scales.
    """
    from sklearn.metrics import cohen_kappa_score

    decided = ("right", "wrong")
    answers = frame[frame["verdict"] != "error"]
    rated = answers.drop_duplicates(["id", "answer"])  # equal answers of several arms were judged once
    rows = {}
    for first, second in itertools.combinations(RATERS, 2):
        both = rated[rated[first].isin(decided) & rated[second].isin(decided)]
        a, b = both[first], both[second]
        rows[f"{RATERS[first]} / {RATERS[second]}"] = {
            "n": len(both),
            "agree_pct": 100.0 * float((a == b).mean()) if len(both) else None,
            "kappa": float(cohen_kappa_score(a, b)) if len({*a, *b}) > 1 else None,
            **{f"{x}_{y}": int(((a == x) & (b == y)).sum()) for x, y in itertools.product(decided, repeat=2)},
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("raters")


# ------------------------------------------------------------------ the model's replies


def model_replies(records: Iterable[JudgedRecord]) -> pd.DataFrame:
    """The replies of the judging model, a row per outcome: its verdicts, and "no verdict: <kind of failure>".

    Args:
        records: of all arms that were judged together.

    Returns:
        Columns: answers; unreadable (replies in which the strict reader finds no judgement, whatever the protocol made
        of them); prompt_tokens and completion_tokens, where equal questions count once, because they are sent once.
    """
    judged = [(record, v) for record in records for v in record.verdicts if v.judge is not None]
    seen: set[tuple] = set()
    rows = []
    for record, v in judged:
        key, call = (record.question, record.options, v.standard, v.answer, v.protocol), v.judge
        outcome = f"no verdict: {call.failure.type}" if call.failure else call.verdict
        unreadable = call.reply is not None and read_judgement(call.reply, "strict", "") == "unparsed"
        tokens = (0, 0) if key in seen else (call.prompt_tokens, call.completion_tokens)
        seen.add(key)
        rows.append((outcome, 1, int(unreadable), *tokens))
    columns = ["model's word", "answers", "unreadable", "prompt_tokens", "completion_tokens"]
    sums = pd.DataFrame(rows, columns=columns).groupby("model's word", sort=False).sum()
    order = dict.fromkeys(["right", "wrong", "unparsed", *sums.index])
    return sums.reindex(list(order), fill_value=0).astype(int)
