"""The explorers' views without a kernel: what executed notebooks and exported pages show of the default state."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from ..report import sample_view
from ..report.sample_view import picture_html, table_html, tokens_html
from ..runs.recorded_run import RecordedRun
from . import gating, traces
from .browser_parts import STYLE
from .gating import Gating
from .state import Chosen, GateView, TraceView

if TYPE_CHECKING:
    from IPython.display import HTML


def gate_still(data: Gating, view: GateView) -> HTML:
    """Numbers, decisions and ledger of a view."""
    told = gating.outcome(data, view)
    decided = data.decided(view)
    protocol = data.part(view.task, view.protocol).protocol
    setting = (
        f"score {view.score}, K {view.k}, threshold {view.threshold:.4f}, router {view.router}, "
        f"{'all splits' if view.task == 'all' else view.task}"
    )
    counts = gating.decisions_of(decided)
    decisions = [
        f"<tr><td>{d.replace('_', ' ')}</td><td>{row['right']}</td><td>{row['wrong']}</td></tr>"
        for d, row in counts.iterrows()
    ]
    entries = [
        f"<tr><td>{name}</td><td>{row['n']}</td><td>{_seconds(row['saved_s'])}</td><td>{row['what']}</td></tr>"
        for name, row in gating.ledger_totals(decided).iterrows()
    ]
    tables = (
        f"<div>{table_html(('decision', 'draft right', 'draft wrong'), decisions)}</div>"
        f"<div>{table_html(('outcome', 'n', 'seconds saved', 'what it is'), entries)}</div>"
    )
    parts = [f"<p>{html.escape(setting)}</p>", gating.outcome_html(told, protocol), _side_by_side(tables)]
    return _page(parts)


def _seconds(saved_s: float) -> str:
    return "–" if pd.isna(saved_s) else f"{saved_s:+.2f}"


def sample_still(data: Gating, view: GateView) -> HTML:
    """The microscope on `view.sample`."""
    decided = data.decided(view).set_index("id", drop=False)
    told = sample_view.tell(
        data.run,
        data.instrumented,
        view.sample,
        view.threshold,
        view.k,
        decided.loc[view.sample],
        data.overrides,
    )
    return _page(
        [
            told.asked,
            picture_html(told.picture),
            "<h4>Draft, token by token</h4>",
            tokens_html(told.tokens),
            told.gate,
            "<h4>Verdicts</h4>",
            told.verdicts,
            "<h4>Cost</h4>",
            told.costs,
            "<h4>The agent, turn by turn</h4>",
            told.agent,
        ]
    )


def trace_still(
    run: RecordedRun, view: TraceView, other: RecordedRun | None = None, other_arm: str = ""
) -> HTML:
    """The first trajectory that a view lists, and the same sample of another run or arm beside it."""
    found = traces.sift(table := traces.trace_table(run, view.arm), view)
    told = [f"<p>{html.escape(traces.shape_of(found, table))}</p>"]
    if not len(found):
        return _page(told)
    id_ = view.sample or found["id"].iloc[0]
    asked = sample_view.asked(run, view.arm, id_)
    told += [asked.asked, picture_html(asked.picture)]
    columns = f"<div>{traces.trace_html(run, view.arm, id_, view.text)}</div>"
    if other is not None:
        told.append(f"<p>{html.escape(traces.difference_line((run, view.arm), (other, other_arm), id_))}</p>")
        columns += f"<div>{traces.trace_html(other, other_arm, id_, view.text)}</div>"
    return _page([*told, _side_by_side(columns)])


def review_plan(
    data: Gating, view: GateView, half_widths_pp: tuple[float, ...] = (2, 5, 10, 15)
) -> pd.DataFrame:
    """How many samples of the part to look at for a share known to +- so many points, and what was marked so far."""
    n = data.part(view.task, view.protocol).n
    marks = data.marks(view)
    rows = [
        {"known to ±, pp": h, "samples to review": gating.sample_size(h, n), "of": n} for h in half_widths_pp
    ]
    return pd.DataFrame(rows).assign(
        **{"marked so far": len(marks), "sound": int((marks["mark"] == "sound").sum())}
    )


def review_queues(data: Gating, view: GateView, n: int, seed: int) -> pd.DataFrame:
    """How many samples each queue for review holds, and which come first."""
    decided = data.decided(view)
    rows = []
    for kind in ("disagree", "borderline", "random"):
        chosen = Chosen(kind, n=n, seed=seed)
        found = gating.listed(decided, replace(view, chosen=chosen))
        first = ", ".join(sample_view.short_id(i) for i in found["id"].head(3))
        rows.append(
            {"queue": gating.chosen_text(chosen), "samples": len(found), "of": len(decided), "first": first}
        )
    return pd.DataFrame(rows).set_index("queue")


def _side_by_side(columns: str) -> str:
    return f"<div style='display: flex; gap: 2rem; flex-wrap: wrap; align-items: flex-start'>{columns}</div>"


def _page(parts: list[str]) -> HTML:
    from IPython.display import HTML

    return HTML(f"<style>{STYLE.read_text('utf-8')}</style><div class='se-explorer'>{''.join(parts)}</div>")
