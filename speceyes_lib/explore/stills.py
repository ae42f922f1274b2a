"""The explorers' views without a kernel: what executed notebooks and exported pages show of the default state."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd
from PIL import Image

from . import gating, microscope, traces
from .gating import Gating
from .microscope import MarkedPicture, Tokens, table_html
from .parts import STYLE
from .reading import Run
from .state import Chosen, GateView, TraceView

if TYPE_CHECKING:
    from IPython.display import HTML

PICTURE_PX = 460
BOX_COLORS = {"target": "#009e73", "crop": "#d55e00"}
ALTERNATIVES = 5


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
        for name, row in gating.ledger(decided).iterrows()
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
    told = microscope.tell(
        data.run, data.instrumented, view.sample, view, decided.loc[view.sample], data.overrides
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


def trace_still(run: Run, view: TraceView, other: Run | None = None, other_arm: str = "") -> HTML:
    """The first trajectory that a view lists, and the same sample of another run or arm beside it."""
    found = traces.sift(table := traces.trace_table(run, view.arm), view)
    told = [f"<p>{html.escape(traces.shape_of(found, table))}</p>"]
    if not len(found):
        return _page(told)
    id_ = view.sample or found["id"].iloc[0]
    asked = microscope.asked(run, view.arm, id_)
    told += [asked.asked, picture_html(asked.picture)]
    columns = f"<div>{traces.trace_html(run, view.arm, id_, view.text)}</div>"
    if other is not None:
        told.append(f"<p>{html.escape(traces.difference_line((run, view.arm), (other, other_arm), id_))}</p>")
        columns += f"<div>{traces.trace_html(other, other_arm, id_, view.text)}</div>"
    return _page([*told, _side_by_side(columns)])


def picture_html(marked: MarkedPicture) -> str:
    """The picture with its boxes, small enough for a page; the reason where there is none."""
    if marked.picture is None:
        return f"<p class='se-missing'>{html.escape(marked.message)}</p>"
    with Image.open(io.BytesIO(marked.picture.data)) as stored:
        small = stored.convert("RGB")
    small.thumbnail((PICTURE_PX, PICTURE_PX))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    scale = small.width / marked.picture.width
    shapes = []
    for box in marked.boxes:
        x1, y1, x2, y2 = (v * scale for v in box["box"])
        color, note = BOX_COLORS[box["kind"]], html.escape(f"{box['label']} {box['note']}".strip())
        shapes.append(
            f"<rect x='{x1:.1f}' y='{y1:.1f}' width='{x2 - x1:.1f}' height='{y2 - y1:.1f}' fill='none' "
            f"stroke='{color}' stroke-width='2'><title>{note}</title></rect>"
        )
    notes = "; ".join(
        f"{html.escape(box['label'])}: {html.escape(box['note'])}"
        for box in marked.boxes
        if box["kind"] == "crop"
    )
    source = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return (
        f"<svg width='{small.width}' height='{small.height}' viewBox='0 0 {small.width} {small.height}' role='img' "
        f"aria-label='{html.escape(marked.label, quote=True)}'><image href='{source}' width='{small.width}' "
        f"height='{small.height}'/>{''.join(shapes)}</svg><p class='se-note'>{html.escape(marked.label)}; green: where "
        f"the benchmark says to look, orange: where the agent looked{f' ({notes})' if notes else ''}</p>"
    )


def tokens_html(strip: Tokens) -> str:
    """The coloured tokens, and the alternatives of the one that decides `min`."""
    if not strip.tokens:
        return f"<p class='se-missing'>{html.escape(strip.message)}</p>"
    tokens = "".join(
        f"<span class='se-token{' se-decides' if token['decides'] else ''}' style='display: inline-block; "
        f"background: {token['color']}; color: {token['ink']}'><span class='se-token-text'>"
        f"{html.escape(token['text'])}</span><span class='se-token-value'>{token['separability']}</span></span>"
        for token in strip.tokens
    )
    first = next((token for token in strip.tokens if token["decides"]), strip.tokens[0])
    others = ", ".join(f"{html.escape(a['text'])} {a['shown']}" for a in first["alternatives"][:ALTERNATIVES])
    return (
        f"<div class='se-tokens'>{tokens}</div><p class='se-note'>{html.escape(first['title'])}: {others}</p>"
    )


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
        first = ", ".join(microscope.short_id(i) for i in found["id"].head(3))
        rows.append(
            {"queue": gating.chosen_text(chosen), "samples": len(found), "of": len(decided), "first": first}
        )
    return pd.DataFrame(rows).set_index("queue")


def _side_by_side(columns: str) -> str:
    return f"<div style='display: flex; gap: 2rem; flex-wrap: wrap; align-items: flex-start'>{columns}</div>"


def _page(parts: list[str]) -> HTML:
    from IPython.display import HTML

    return HTML(f"<style>{STYLE.read_text('utf-8')}</style><div class='se-explorer'>{''.join(parts)}</div>")
