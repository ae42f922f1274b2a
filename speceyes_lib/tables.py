"""Tables of a run and of the paper: one long form, shown in several dresses.

The long form has one row per source, agent, method and split, with the columns of `COLUMNS`:
`source` is "reported" or "measured"; intervals and `n` are NaN where there are none. Blank means "no such
number": a measured table is never filled from the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from .paper import AVERAGE, SPLITS
from .params import BATCHED

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

COLUMNS = (
    *("source", "agent", "method", "split"),
    *("accuracy_pct", "accuracy_low_pct", "accuracy_high_pct", "n"),
    *("speedup", "speedup_low", "speedup_high"),
)

# ------------------------------------------------------------------ names: one per method, split and agent

_METHODS = {
    "baseline": "Agent alone",
    "draft_only": "Draft alone",
    "specreason": "SpecReason",
    "speceyes_log": "SpecEyes (log)",
    "speceyes_mean": "SpecEyes (mean)",
    "speceyes_bottom20": "SpecEyes (bottom)",
    "speceyes_min": "SpecEyes (min)",
    "router_only": "Router, no gate",
}
_SPLITS = dict(
    zip(
        (*SPLITS, AVERAGE),
        ("V* direct", "V* relative", "HR 4K", "HR 8K", "POPE adv.", "POPE pop.", "POPE rand.", "Average"),
        strict=True,
    )
)
_AGENTS = {"deepeyes": "DeepEyes", "thyme": "Thyme", "none": "no agent"}


def method_label(method: str) -> str:
    """ "speceyes_min_batched" -> "SpecEyes (min), batched"; unknown methods keep their name."""
    name = method.removesuffix(BATCHED)
    return _METHODS.get(name, name) + (", batched" if method.endswith(BATCHED) else "")


def split_label(split: str) -> str:
    return _SPLITS.get(split, split)


def agent_label(agent: str) -> str:
    return _AGENTS.get(agent, agent)


def method_of(arm: str, score: str = "min") -> str:
    """The method that an arm of a run stands for: `gated` is SpecEyes with the run's confidence score."""
    return f"speceyes_{score}{arm.removeprefix('gated')}" if arm.startswith("gated") else arm


def score_of(summary: Mapping) -> str:
    """The confidence score the run was gated by."""
    return summary.get("gate", {}).get("score") or "min"


# ------------------------------------------------------------------ long forms


def measured_results(summary: Mapping) -> pd.DataFrame:
    """`summary.json` in long form, `AVERAGE` included; `agent` is the name of the run."""
    rows = []
    for arm, told in summary["arms"].items():
        entries = {**told["splits"], AVERAGE: told["average"]}
        for split, entry in entries.items():
            row = {c: entry.get(c) for c in COLUMNS[4:]}
            if arm.startswith("baseline"):  # each setting's agent alone is what the others are compared with
                row |= {"speedup": 1.0, "speedup_low": None, "speedup_high": None}
            names = ("measured", summary.get("run") or "run", method_of(arm, score_of(summary)), split)
            rows.append(dict(zip(COLUMNS[:4], names, strict=True)) | row)
    return _numeric(pd.DataFrame(rows, columns=list(COLUMNS)))


def reported_results(table1: pd.DataFrame) -> pd.DataFrame:
    """The paper's Table 1 (`paper.reported("table1")`) in long form."""
    method = table1["method"].where(table1["confidence"] == "", table1["method"] + "_" + table1["confidence"])
    long = table1.assign(source="reported", method=method)
    return _numeric(long.reindex(columns=list(COLUMNS)))


def _numeric(long: pd.DataFrame) -> pd.DataFrame:
    numbers = list(COLUMNS[4:])
    return long.assign(**long[numbers].astype("float64"))


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


# ------------------------------------------------------------------ numbers as text


def _missing(value: float | None) -> bool:
    return value is None or bool(np.isnan(value))


def number(value: float | None, digits: int = 2) -> str:
    """A number for a table; blank where there is none."""
    return "" if _missing(value) else f"{value:.{digits}f}"


def p_text(value: float | None) -> str:
    """A p-value: three digits, never "0.000"."""
    return "" if _missing(value) else f"{value:.3f}" if value >= 0.001 else "<0.001"


def times(value: float | None) -> str:
    """A speedup: "1.73x"."""
    return "" if _missing(value) else f"{value:.2f}x"


def with_interval(
    value: float | None,
    low: float | None,
    high: float | None,
    digits: int = 1,
    unit: str = "",
    sign: str = "",
) -> str:
    """ "96.2 [94.2, 97.5]", without the bracket where there is no interval, blank without a value."""
    if _missing(value):
        return ""
    text = f"{value:{sign}.{digits}f}{unit}"
    return (
        text
        if _missing(low) or _missing(high)
        else f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
    )


def plain(table: pd.DataFrame, digits: int = 1) -> pd.DataFrame:
    """A table of numbers as text: fractions to `digits`, counts whole, blanks where there is nothing."""

    def text(value: object) -> object:
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return ""
        return number(value, digits) if isinstance(value, float) else value

    return table.astype(object).map(text)


# ------------------------------------------------------------------ dresses


def styled(table: pd.DataFrame, caption: str = "") -> Styler:
    """A table for a notebook: plain text cells, right-aligned, thin rules, the caption above."""
    rules = [
        {"selector": "caption", "props": "caption-side: top; text-align: left; font-weight: bold"},
        {"selector": "th", "props": "text-align: left; vertical-align: top; font-weight: 600"},
        {"selector": "td", "props": "text-align: right; white-space: pre; padding: 2px 8px"},
        {"selector": "thead tr:last-child th", "props": "border-bottom: 1px solid #888"},
    ]
    # no random ids: the same table gives the same HTML
    return table.style.set_uuid("t").set_table_styles(rules).set_caption(caption)
