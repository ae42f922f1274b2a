"""How the scorer changes an accuracy: the same answers under every scorer, and what each correction moves.

`compare_scorers` scores each answer under all of `other_scorers.SCORERS`; the other functions take its frame. Every
answer that `paper` and `strict` treat differently belongs to exactly one correction, named after the rule of the
original that it corrects. So the corrections add up to the difference in any order.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from ..runs.records import JudgedRecord
from ..stats import proportions
from ..tasks.sample import YES_NO
from .other_scorers import SCORERS, Target, lmms_eval_yes_no, pope_own_yes_no, vlmevalkit_yes_no
from .rules import judge, named_option
from .verdict_frames import verdict_frame

CORRECTIONS = {  # the rule of `paper` -> what `strict` does instead
    "letter_anywhere": "a letter within a word or beside another option is no answer",
    "equal_length": "yes and no are read in any case",
    "one_character": "letters are read in any case",
    "letter_and_dot": "letters are read in any case",
    "standard_answer_inside": "naming further options is no answer",
    "boxed_without_brace": "a broken box loses its sample no longer",
    "asks_llm": "answers in words are read, not sent to a model",
}
FAILED = "failed samples count as wrong"
BY_MODEL = "the judging model decides what is open"
BY_PEOPLE = "people overrule"


def compare_scorers(records: Iterable[JudgedRecord], source: str = "final") -> pd.DataFrame:
    """The verdict of every scorer on every answer.

    Args:
        records: judged records of one arm. Those without options or without a standard answer (imported ones may lack
            them) cannot be scored and are left out.
        source: which answers: "final", "draft", "agent" or "first_look".

    Returns:
        A row per answer: the columns of `verdict_frame`, failed (bool), paper_rule (the rule of `paper` that decides),
        and a column per scorer (None: it has no rules for the benchmark). `attrs["protocol"]` is the one that the
        records were judged under.
    """
    kept = [r for r in records if r.options and all(v.standard for v in r.verdicts)]
    frame = verdict_frame(kept, source=source)
    targets = {r.id: Target.of(r, v.standard) for r in kept for v in r.verdicts if v.source == source}
    failed = frame["verdict"].eq("error")
    replies = frame["answer"].fillna("").mask(failed, "")
    cases = [(targets[i], *case) for i, *case in zip(frame["id"], replies, failed, strict=True)]
    scores = {name: [scorer(*case) for case in cases] for name, scorer in SCORERS.items()}
    rules = [judge(target, reply, "paper", fails).rule for target, reply, fails in cases]
    frame = frame.assign(failed=failed, paper_rule=rules, **scores)
    frame.attrs["protocol"] = next((v.protocol for r in kept for v in r.verdicts), "strict")
    return frame


def accuracy_by_scorer(scored: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by every scorer, by split and over all ("all"); without documented rules there is no row.

    Index: split, scorer. Columns: accuracy_pct (missing where n is 0), n (the denominator of the scorer), dropped, open
    (answers that it would send to a language model; they are not right until it has answered).
    """
    rows = {}
    for split, part in {**dict(list(scored.groupby("task", sort=False))), "all": scored}.items():
        for scorer in SCORERS:
            if part[scorer].isna().any():
                continue
            verdicts = part[scorer].value_counts()
            right, dropped, undecided = (int(verdicts.get(v, 0)) for v in ("right", "dropped", "undecided"))
            n = len(part) - dropped
            counts = {"n": n, "dropped": dropped, "open": undecided}
            rows[split, scorer] = {"accuracy_pct": _percent(right, n)} | counts
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["split", "scorer"])


def pope_by_scorer(scored: pd.DataFrame) -> pd.DataFrame:
    """The measures of yes/no answers (POPE) as each scorer defines them on the same answers.

    lmms-eval counts only a literal "no" as a missed yes and gives the yes ratio of the *truth*; VLMEvalKit takes an
    unknown answer as "no" in precision, recall and F1; POPE's own evaluator knows no unknown answers.

    Index: split, scorer. Columns: accuracy_pct, precision_pct, recall_pct, f1_pct, yes_pct, neither (unread), n.
    """
    readers = {
        "strict": lambda text: named_option(text, None)[0],
        "lmms-eval": lmms_eval_yes_no,
        "VLMEvalKit": vlmevalkit_yes_no,
        "POPE's own": pope_own_yes_no,
    }
    rows = {}
    for task, part in scored[scored["standard"].isin(YES_NO)].groupby("task", sort=False):
        truth = part["standard"].to_numpy(object)
        answers = part["answer"].fillna("").mask(part["failed"], "")
        for scorer, read in readers.items():
            rows[task, scorer] = _pope_measures(truth, np.array([read(a) for a in answers], object), scorer)
    index = pd.MultiIndex.from_tuples(rows, names=["split", "scorer"]) if rows else None
    return pd.DataFrame(list(rows.values()), index=index)


def corrections(scored: pd.DataFrame) -> pd.DataFrame:
    """From the accuracy of `paper` to that of `strict`: a row per step that changes something.

    Where the records were judged under `strict`, the decisions of a judging model and of people are the last steps.

    Args:
        scored: see `compare_scorers`.

    Returns:
        Columns: step; gained and lost (answers that become right or stop being right); moved_points; accuracy_pct after
        the step; n, its denominator. `paper` divides by the samples without an error, every later step by all samples.
    """
    strict, rule = scored["strict"].eq("right"), scored["paper_rule"].map(CORRECTIONS)
    steps = [(step, strict, rule.eq(step)) for step in dict.fromkeys(CORRECTIONS.values())]
    if scored.attrs.get("protocol", "strict") == "strict":
        everything = pd.Series(True, index=scored.index)
        steps.append((BY_MODEL, scored["unreviewed"].eq("right"), everything))
        steps.append((BY_PEOPLE, scored["verdict"].eq("right"), everything))
    is_right, n = scored["paper"].eq("right"), len(scored)
    kept = int((scored["paper"] != "dropped").sum())
    rows = [("paper", 0, 0, int(is_right.sum()), kept)]
    if kept < n:
        rows.append((FAILED, 0, 0, int(is_right.sum()), n))
    for step, now, among in steps:
        gained, lost = (now & ~is_right & among), (is_right & ~now & among)
        if gained.any() or lost.any():
            is_right = is_right.mask(among, now)
            rows.append((step, int(gained.sum()), int(lost.sum()), int(is_right.sum()), n))
    rows.append(("strict", 0, 0, int(is_right.sum()), n))
    table = pd.DataFrame(rows, columns=["step", "gained", "lost", "right", "n"])
    accuracy = (100.0 * table["right"] / table["n"]).rename("accuracy_pct")
    moved = accuracy.diff().rename("moved_points")
    moved.iloc[[0, -1]] = 0.0
    return pd.concat([table[["step", "gained", "lost"]], moved, accuracy, table["n"]], axis=1)


def _pope_measures(truth: np.ndarray, answers: np.ndarray, scorer: str) -> dict[str, float]:
    """POPE's measures of one scorer; lmms-eval leaves unread answers out of its recall and divides differently."""
    if scorer == "lmms-eval":
        hit, false = ((truth == word) & (answers == "yes") for word in ("yes", "no"))
        hit, false, missed = hit.sum(), false.sum(), ((truth == "yes") & (answers == "no")).sum()
        measures = (
            *(_percent((answers == truth).sum(), len(truth)), _percent(hit, hit + false)),
            *(_percent(hit, hit + missed), _percent(2 * hit, 2 * hit + false + missed)),
            _percent((truth == "yes").sum(), len(truth)),
        )
    else:
        scores = proportions.yes_no_scores(truth, answers)
        estimates = (scores.accuracy, scores.precision, scores.recall, scores.f1, scores.yes_ratio)
        measures = [estimate.value for estimate in estimates]
    names = ("accuracy_pct", "precision_pct", "recall_pct", "f1_pct", "yes_pct")
    unknown = int(sum(word is None for word in answers))
    return dict(zip(names, measures, strict=True)) | {"neither": unknown, "n": len(truth)}


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else np.nan
