"""Tables of a run and of the paper: one long form, shown in several dresses.

The long form has one row per source, agent, method and split, with the columns of `COLUMNS`:
`source` is "reported" or "measured"; intervals and `n` are NaN where there are none. Blank means "no such
number": a measured table is never filled from the paper.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ..analysis.results import method_of, score_of
from ..judging.benchmark_measures import COLUMNS, MEASURES, OVERALL
from ..judging.other_scorers import SCORERS, lmms_eval_yes_no, pope_own_yes_no, vlmevalkit_yes_no
from ..judging.rules import named_option
from ..judging.scorer_comparison import pope_measures, scorer_accuracy
from ..tasks.sample import YES_NO
from .formatting import number, p_text, with_interval
from .labels import method_label, split_label


def benchmark_tables(by_arm: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """benchmark -> the long forms of several arms as one table of text: a row per arm and split, counts beside all."""
    parts = [part.assign(arm=method_label(arm)) for arm, part in by_arm.items()]
    long = pd.concat(parts or [pd.DataFrame(columns=[*COLUMNS, "arm"])], ignore_index=True)
    told = {}
    for benchmark, part in long.groupby("benchmark", sort=False):
        cells = [
            f"{with_interval(v, low, high)}\nn={n}" if n else "n=0"
            for v, low, high, n in part[["value_pct", "low_pct", "high_pct", "n"]].itertuples(index=False)
        ]
        names = part["split"].map(lambda s, b=benchmark: s if s == OVERALL else split_label(f"{b}/{s}"))
        rows = part.assign(cell=cells, split=names).set_index(["split", "arm", "measure"])["cell"]
        table = rows.unstack("measure")  # noqa: PD010 (text cells, one each)
        arms = [method_label(arm) for arm in by_arm]
        order = [(s, a) for s in dict.fromkeys(names) for a in arms if (s, a) in table.index]
        columns = [m for m in MEASURES if m in table.columns]
        told[benchmark] = table.reindex(order)[columns].rename(columns=MEASURES).rename_axis(columns=None)
    return told


def scorer_table(scored: pd.DataFrame) -> pd.DataFrame:
    """Accuracy in percent by split (and over all) and scorer, with what the figure stands on.

    Cells read "96.2 (n=519, 1 dropped, 3 open)": n is the scorer's own denominator; open are answers it would ask
    a language model about, not right until it has said so. Blank: no documented rules for this benchmark.
    """
    splits = {split_label(t): scored[scored["task"] == t] for t in dict.fromkeys(scored["task"])}
    rows = {
        name: {scorer: _scorer_cell(part[scorer]) for scorer in SCORERS}
        for name, part in {**splits, "all": scored}.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("split")


def _scorer_cell(scores: pd.Series) -> str:
    values = scorer_accuracy(scores)
    if values is None:
        return ""
    if not values["n"]:
        return f"(n=0, {values['dropped']} dropped)"
    notes = [f"n={values['n']}", *(f"{values[name]} {name}" for name in ("dropped", "open") if values[name])]
    return f"{number(values['accuracy_pct'], 1)} ({', '.join(notes)})"


# ------------------------------------------------------------------ POPE


def pope_table(scored: pd.DataFrame) -> pd.DataFrame:
    """The five measures of yes/no answers (POPE) in percent, as each scorer defines them; a row per split and scorer.

    lmms-eval counts only a literal "no" as a missed yes and gives the yes ratio of the *truth*; VLMEvalKit takes an
    unknown answer as "no" in precision, recall and F1; POPE's own evaluator knows no unknown answers.
    """
    rows = {}
    for task, part in scored[scored["standard"].isin(YES_NO)].groupby("task", sort=False):
        truth = part["standard"].to_numpy(object)
        said = part["answer"].fillna("").mask(part["failed"], "")
        readings = {
            "strict": [named_option(s, None)[0] for s in said],
            "lmms-eval": [lmms_eval_yes_no(s) for s in said],
            "VLMEvalKit": [vlmevalkit_yes_no(s) for s in said],
            "POPE's own": [pope_own_yes_no(s) for s in said],
        }
        for scorer, words in readings.items():
            measures = pope_measures(truth, np.array(words, object), scorer)
            rows[split_label(task), scorer] = {
                name: number(value, 1) if name.endswith("%") else value for name, value in measures.items()
            }
    index = pd.MultiIndex.from_tuples(rows, names=["split", "scorer"]) if rows else None
    return pd.DataFrame(list(rows.values()), index=index)


def agreement_table(table: pd.DataFrame) -> pd.DataFrame:
    """For people: how many samples differ per setting, and both accuracies."""
    rows = [
        {
            "setting": row.setting,
            "n": row.n,
            "decisions differ": row.decisions_differ,
            "answers differ": row.answers_differ,
            "verdicts differ": row.verdicts_differ,
            "confidence off": "" if math.isnan(row.confidence_off) else f"{row.confidence_off:.0e}",
            "accuracy %, replayed": number(row.accuracy_pct_predicted, 2),
            "measured": number(row.accuracy_pct_measured, 2),
            "accepted, replayed": row.accepted_predicted,
            "accepted": row.accepted_measured,
        }
        for row in table.itertuples()
    ]
    return pd.DataFrame(rows).set_index("setting")


def cost_table(table: pd.DataFrame) -> pd.DataFrame:
    """For people: predicted and measured seconds and speedups per setting."""
    rows = [
        {
            "setting": row.setting,
            "wall-clock s, replayed": number(row.wall_s_predicted, 1),
            "measured": number(row.wall_s_measured, 1),
            "speedup, replayed": f"{number(row.speedup_predicted, 2)}x",
            "speedup, measured": f"{number(row.speedup_measured, 2)}x",
            "off": f"{number(row.off_pct, 1)} %",
            "note": textwrap.fill(row.cost_note, 60),
        }
        for row in table.itertuples()
    ]
    return pd.DataFrame(rows).set_index("setting")


# ------------------------------------------------------------------ what people read


def samples_table(frame: pd.DataFrame, modes: Sequence[str]) -> pd.DataFrame:
    """A few samples of the frame, one per column: question, the draft with its confidences, the agent."""
    shown = frame.set_index("id")
    rows = {
        "question": shown["question"],
        "draft": shown["draft_answer"] + " (" + shown["draft_verdict"] + ")",
        **{f"confidence, {mode}": shown[f"score_{mode}"].map(lambda v: number(v, 4)) for mode in modes},
        "would a tool help?": shown["router_verdict"],
        "agent": shown["agent_answer"] + " (" + shown["agent_verdict"] + ")",
        "agent's turns": shown["n_turns"].map(lambda v: number(v, 0)),
    }
    return pd.DataFrame(rows).T.fillna("")


def verdict_table(judged: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """Final answers per arm and verdict: `judged` maps arm -> verdict -> count."""
    verdicts = ["right", "wrong", "unparsed", "undecided", "error"]
    rows = {method_label(arm): {v: counts.get(v, 0) for v in verdicts} for arm, counts in judged.items()}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=verdicts).rename_axis("arm")
    return table.assign(n=table.sum(axis=1))


def order_table(orders: pd.DataFrame) -> pd.DataFrame:
    """Draft accuracy by the order of the options, as `position_bias.by_order` has it: a row per task and order."""
    rows = [
        {
            "task": "all" if row.task == "all" else split_label(row.task),
            "order": row.order.replace("_", " "),
            "accuracy % [95 %]": with_interval(row.accuracy_pct, row.low_pct, row.high_pct),
            "n": row.n,
            "errors": row.errors,
            "unparsed": row.unparsed,
            "first %": number(row.first_pct, 1),
            "right first %": number(row.first_right_pct, 1),
            "difference [95 %]": with_interval(
                row.diff_pp, row.diff_low_pp, row.diff_high_pp, sign="+", unit=" pp"
            ),
            "p": p_text(row.p_value),
            "changed": number(row.changed, 0),
        }
        for row in orders.itertuples()
    ]
    return pd.DataFrame(rows).set_index(["task", "order"])


def headline_table(summary: Mapping, split: str | None = None) -> pd.DataFrame:
    """One row per arm, over all samples or one split: accuracy, counts, clock, speedup, what was accepted."""
    rows = {}
    for arm, told in summary["arms"].items():
        entry = told["pooled"] if split is None else told["splits"][split]
        over = entry.get("speedup_over")
        rows[method_label(method_of(arm, score_of(summary)))] = {
            "accuracy % [95 %]": with_interval(*_triple(entry, "accuracy", "_pct")),
            "n": entry["n"],
            "errors": entry["errors"],
            "unparsed": entry["unparsed"],
            "undecided": entry["undecided"],
            "wall-clock s": number(entry["wall_s"], 1),
            "speedup [95 %]": with_interval(*_triple(entry, "speedup"), digits=2, unit="x") if over else "",
            "over": method_label(method_of(over, score_of(summary))) if over else "",
            "beta": number(entry.get("beta")),
            "alpha": number(entry.get("alpha")),
            "accepted %": number(entry.get("accepted_pct"), 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method")


def comparison_table(summary: Mapping) -> pd.DataFrame:
    """Paired differences in accuracy, one row per comparison and split (pooled first)."""
    rows = []
    for name, told in summary["comparisons"].items():
        a, b = (method_label(method_of(arm, score_of(summary))) for arm in name.split("_vs_"))
        for split, entry in {"all": told["pooled"], **told["splits"]}.items():
            rows.append(
                {
                    "comparison": f"{a} − {b}",
                    "split": split_label(split),
                    "points [95 %]": with_interval(*_triple(entry, "pp"), sign="+"),
                    "only first right": entry["b"],
                    "only second right": entry["c"],
                    "McNemar p": p_text(entry["p_value"]),
                    "n": entry["n"],
                }
            )
    columns = [
        "comparison",
        "split",
        "points [95 %]",
        "only first right",
        "only second right",
        "McNemar p",
        "n",
    ]
    return pd.DataFrame(rows, columns=columns).set_index(["comparison", "split"])


def auroc_table(summary: Mapping) -> pd.DataFrame:
    """AUROC of each confidence mode for "the draft is right", over all drafts, after the router, per split."""
    rows = {}
    for mode, told in summary["auroc"].items():
        entries = {"all": told["pooled"], "after router": told["after_router"], **told["splits"]}
        rows[mode] = {
            f"{split_label(s)} (n={e['n']})": with_interval(e["value"], e["low"], e["high"], digits=2)
            for s, e in entries.items()
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("mode")


def first_look_table(summary: Mapping) -> pd.DataFrame:
    """The agent with its tool against its forced first look, by size of the target."""
    told = summary["first_look"]
    rows = {}
    for name in ("hard", "easy", "all"):
        entry = told[name]
        gain = entry["gain"]
        rows[name] = {
            "n": entry["n"],
            "first look % [95 %]": with_interval(*_triple(entry, "first_look", "_pct")),
            "with zoom % [95 %]": with_interval(*_triple(entry, "zoom", "_pct")),
            "gain in points [95 %]": with_interval(*_triple(gain, "pp"), sign="+"),
            "McNemar p": p_text(gain["p_value"]),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("samples")


def _triple(entry: Mapping, name: str, unit: str = "") -> tuple[float | None, ...]:
    if name == "pp":
        return entry["diff_pp"], entry["low_pp"], entry["high_pp"]
    return tuple(entry.get(f"{name}{end}{unit}") for end in ("", "_low", "_high"))
