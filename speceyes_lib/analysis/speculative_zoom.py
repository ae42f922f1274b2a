"""Speculative zoom: the crop is made and encoded while the agent still writes its call. What could that save at most?

Computed from recorded trajectories of an agent that zooms, before anybody builds it. A call is written as text, and its
box stands before its label and the end marks. So the crop can be made as soon as the box is complete, without any guess
("from the box on"). A guess of the box could begin when the turn begins ("whole turn").
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from ..errors import DataError
from ..paths import resolve, shown
from ..runs.packed import opened
from ..runs.records import AgentRecord
from ..stats.paired import speedup
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap

_BOX = re.compile(r'"bbox_2d"\s*:\s*\[[^\]]*\]')


def zoom_turns(path: str | Path, arm: str = "baseline") -> pd.DataFrame:
    """The turns of an agent that ran one by one.

    Args:
        path: folder of a run, or the packed file of recorded runs.
        arm: whose agents.

    Returns:
        A row per turn: run, id, turn (from 0), seconds, tokens, zoomed (the turn asks for a crop, and gets it),
        after_box (share of the turn's text behind the box; 0 without one), tools_s (of the sample's tools, for each of
        its crops).

    Raises:
        DataError: there are no timed turns of this arm.
    """
    place, rows = resolve(path), []
    with opened(place) as folder:
        files = sorted(
            {*folder.glob(f"02_{arm}/**/records.jsonl"), *folder.glob(f"demo/02_{arm}/**/records.jsonl")}
        )
        for file in files:
            for line in file.read_bytes().splitlines():
                try:
                    record = AgentRecord.model_validate_json(line)
                except ValidationError:
                    raise DataError(
                        f"{shown(file)}: a line is no record of an agent; run the stage again"
                    ) from None
                rows += _turns_of(record)
    frame = pd.DataFrame(rows, columns=["id", "turn", "seconds", "tokens", "zoomed", "after_box", "tools_s"])
    if not len(frame):
        raise DataError(f"{shown(place)}: no timed turns of the arm {arm!r} are here; run notebook 02")
    return frame


def _turns_of(record: AgentRecord) -> list[dict]:
    turns = record.trajectory.turns if record.trajectory and record.timed else ()
    if any(turn.n_tokens is None or turn.batch_size != 1 for turn in turns):
        return []
    crops = sum(turn.crop_px is not None for turn in turns)
    rows = []
    for place, turn in enumerate(turns):
        box = _BOX.search(turn.text)
        rows.append(
            {
                "id": record.id,
                "turn": place,
                "seconds": turn.turn_s,
                "tokens": turn.n_tokens,
                "zoomed": turn.crop_px is not None,
                "after_box": (len(turn.text) - box.end()) / len(turn.text) if box else 0.0,
                "tools_s": record.tool_s / crops if crops else 0.0,
            }
        )
    return rows


def zoom_ceiling(turns: pd.DataFrame, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> pd.DataFrame:
    """The most that speculative zoom can save.

    The seconds of a turn are fitted by a constant for the first turn, one for later turns, and seconds per token. What
    comes before the first token of a turn after a crop is at most that constant. Part of it is reading of the
    conversation, which cannot be done in advance, so the ceiling is too high rather than too low.

    Args:
        turns: of `zoom_turns`.
        bootstrap: of samples.

    Returns:
        Index: "whole turn", "from the box on". Columns: samples, zooms, crop_ms (mean), encode_ms (at most, before the
        first token), hidden_ms (mean per zoom), speedup, low, high (of all samples).
    """
    first = turns["turn"].eq(0).to_numpy(float)
    design = np.column_stack([first, 1 - first, turns["tokens"].to_numpy(float)])
    seconds = turns["seconds"].to_numpy(float)
    (_, later_s, token_s), *_ = np.linalg.lstsq(design, seconds, rcond=None)
    encode_s, token_s = max(0.0, float(later_s)), max(0.0, float(token_s))
    zooms = turns[turns["zoomed"]]
    work_s = zooms["tools_s"].to_numpy(float) + encode_s
    decoding_s = token_s * zooms["tokens"].to_numpy(float)
    after_box = zooms["after_box"].to_numpy(float)
    sample = turns.groupby("id", sort=False)
    zoom_count = turns["zoomed"].groupby(turns["id"], sort=False).sum()
    total_s = sample["seconds"].sum() + sample["tools_s"].first() * zoom_count
    rows = {}
    for name, head_s in (("whole turn", decoding_s), ("from the box on", decoding_s * after_box)):
        hidden = pd.Series(np.minimum(work_s, head_s), index=zooms["id"].to_numpy())
        saved = hidden.groupby(level=0).sum().reindex(total_s.index, fill_value=0.0)
        faster = speedup(total_s.to_numpy(), (total_s - saved).to_numpy(), bootstrap=bootstrap)
        rows[name] = {
            "samples": len(total_s),
            "zooms": len(zooms),
            "crop_ms": 1e3 * zooms["tools_s"].mean(),
            "encode_ms": 1e3 * encode_s,
            "hidden_ms": 1e3 * hidden.mean(),
            "speedup": faster.value,
            "low": faster.low,
            "high": faster.high,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("begun")
