"""Verdicts as frames: one row per judged answer, and how far rule, model and people agree.

`tidy` gives the columns

=============================== =====================================================================
`id task benchmark split`       where the sample comes from
`group kind question options`   as in `judging.JudgedRecord`
`arm source answer standard`    whose answer, which one, what was said, what is right
`verdict decided_by rule`       what counts, who decided, the rule that read the answer
`by_rule by_model by_human`     what each said; None where not asked (or, the rule apart, no reply came)
`unreviewed`                    the verdict without the human checks
=============================== =====================================================================
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from ..runs.recorded_run import RecordedRun
from ..runs.records import JudgedRecord, Manifest, Verdict
from .llm import read_reply

COLUMNS = (
    *("id", "task", "benchmark", "split", "group", "kind", "question", "options"),
    *("arm", "source", "answer", "standard", "verdict", "decided_by", "rule"),
    *("by_rule", "by_model", "by_human", "unreviewed"),
)
RATERS = {"by_rule": "rule", "by_model": "model", "by_human": "human"}
LEFT_OPEN = ("unparsed", "undecided")


def tidy(records: Iterable[JudgedRecord], arm: str = "", source: str | None = None) -> pd.DataFrame:
    """The verdicts of judged records as a frame; of one source ("final", "draft", …), or all."""
    rows = [
        (*_sample(record), arm, v.source, v.answer, v.standard, v.verdict, v.decided_by, v.rule, *_said(v))
        for record in records
        for v in record.verdicts
        if source in (None, v.source)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def read_verdicts(recorded: RecordedRun, arms: Sequence[str] = (), source: str | None = None) -> pd.DataFrame:
    """`tidy` over the arms of a run (none named: all it has); `attrs["protocol"]` is the protocol of the verdicts."""
    arms = arms or recorded.arms
    parts = [tidy(recorded.judged(arm).values(), arm, source) for arm in arms]
    frame = pd.concat(parts, ignore_index=True) if parts else tidy(())
    frame.attrs["protocol"] = recorded.protocol_of(arms)
    return frame


def _sample(record: JudgedRecord) -> tuple:
    benchmark, split, _ = record.id.split("/", 2)
    place = (record.id, f"{benchmark}/{split}", benchmark, split)
    return (*place, record.group, record.kind, record.question, record.options)


def _said(v: Verdict) -> tuple[str | None, ...]:
    model = v.judge.verdict if v.judge and v.judge.failure is None else None
    return v.by_rule, model, v.human.verdict if v.human else None, v.unreviewed


def counted(frame: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """The rows that are in the denominator: all under `strict`; `paper` leaves failed samples out."""
    return frame[frame["verdict"] != "error"] if protocol == "paper" else frame


def of_source(frame: pd.DataFrame, source: str = "final", arm: str | None = None) -> pd.DataFrame:
    """The rows of one source ("final", "draft", …), of one arm or all."""
    rows = frame["source"] == source
    return frame[rows if arm is None else rows & (frame["arm"] == arm)]


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """What people need to follow a verdict: question, answers, and who decided by which rule."""
    columns = ["id", "question", "source", "answer", "standard", "verdict", "decided_by", "rule"]
    return frame[columns].fillna("").replace({"decided_by": {"none": "nobody"}}).set_index("id")


def left_open(frame: pd.DataFrame) -> pd.DataFrame:
    """The answers that nobody could call right or wrong, though there was no failure."""
    return frame[frame["verdict"].isin(LEFT_OPEN)]


def counts_by_arm(frame: pd.DataFrame) -> dict[str, dict[str, int]]:
    """arm -> verdict -> how many answers, as `tables.verdict_table` takes them."""
    return {arm: part["verdict"].value_counts().to_dict() for arm, part in frame.groupby("arm", sort=False)}


def deciders(frame: pd.DataFrame) -> pd.DataFrame:
    """How often each rule, the model and people decided what: a row per decider, a column per verdict."""
    by = frame["decided_by"].replace("none", "nobody")
    return pd.crosstab([by.rename("decided by"), frame["rule"]], frame["verdict"])


def with_and_without_people(frame: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Accuracy with what people overruled and without, a row per arm.

    Columns: with_pct, without_pct, n (the denominator), checked (answers that a person judged), overruled (of them
    those whose verdict changed).
    """
    rows = {}
    for arm, part in frame.groupby("arm", sort=False):
        rows_in = counted(part, protocol)
        share = {
            name: 100.0 * float((rows_in[column] == "right").mean()) if len(rows_in) else None
            for name, column in (("with_pct", "verdict"), ("without_pct", "unreviewed"))
        }
        checked = part["by_human"].notna()
        changed = int((part["verdict"] != part["unreviewed"]).sum())
        rows[arm] = share | {"n": len(rows_in), "checked": int(checked.sum()), "overruled": changed}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")


# ------------------------------------------------------------------ agreement


def ratings(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per answer to a sample, with who said what of it: columns `by_rule`, `by_model`, `by_human`.

    Equal answers of several arms are one: they got their verdict once.
    """
    answers = frame[frame["verdict"] != "error"]
    return answers.drop_duplicates(["id", "answer"])[["id", "answer", *RATERS]]


def agreement(frame: pd.DataFrame) -> pd.DataFrame:
    """Cohen's kappa and the confusion of each two raters, over the answers that both called right or wrong.

    Columns: n, agree_pct, kappa (None where both only ever used one and the same word: it is undefined there),
    and the four counts `right_right`, `right_wrong`, … (first rater's word first).
    """
    told = ratings(frame)
    rows = {}
    for first, second in itertools.combinations(RATERS, 2):
        both = told[told[first].isin(["right", "wrong"]) & told[second].isin(["right", "wrong"])]
        a, b = both[first], both[second]
        defined = len({*a, *b}) > 1
        rows[f"{RATERS[first]} / {RATERS[second]}"] = {
            "n": len(both),
            "agree_pct": 100.0 * float((a == b).mean()) if len(both) else None,
            "kappa": _kappa(a, b) if defined else None,
            **{
                f"{x}_{y}": int(((a == x) & (b == y)).sum())
                for x, y in itertools.product(("right", "wrong"), repeat=2)
            },
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("raters")


def _kappa(a: pd.Series, b: pd.Series) -> float:
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(a, b))


# ------------------------------------------------------------------ the model's replies


def model_replies(records: Iterable[JudgedRecord]) -> pd.DataFrame:
    """What came of asking the judging model, a row per outcome: answers, of them unreadable, tokens; all 0 without one.

    Outcomes are its verdicts, and the kinds of failure where no reply came. `unreadable` counts replies in which
    a strict reader finds no judgement, whatever the protocol made of them. What the model is shown alike is paid
    for once, so equal questions add their tokens once.
    """
    calls = [
        ((record.question, record.options, v.standard, v.answer, v.protocol), v.judge)
        for record in records
        for v in record.verdicts
        if v.judge is not None
    ]
    nothing = dict.fromkeys(("answers", "unreadable", "prompt_tokens", "completion_tokens"), 0)
    rows = {verdict: dict(nothing) for verdict in ("right", "wrong", "unparsed")}
    seen: set[tuple] = set()
    for key, call in calls:
        outcome = f"no reply: {call.failure.type}" if call.failure else call.verdict
        row = rows.setdefault(outcome, dict(nothing))
        row["answers"] += 1
        row["unreadable"] += call.reply is not None and read_reply(call.reply, "strict", "") == "unparsed"
        if key not in seen:
            seen.add(key)
            row["prompt_tokens"] += call.prompt_tokens
            row["completion_tokens"] += call.completion_tokens
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model's word")


def session_cost(manifests: Iterable[Manifest]) -> Mapping[str, int]:
    """What judging cost in the session that finished these stages: sums of `judge_*` over their manifests."""
    total: dict[str, int] = {}
    for manifest in manifests:
        for name, value in manifest.timing.items():
            if name.startswith("judge_"):
                total[name] = total.get(name, 0) + int(value)
    return total
