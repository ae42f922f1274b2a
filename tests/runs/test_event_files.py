"""TensorBoard's event files: what is written is read back, and has the bytes of the real library's records."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from speceyes_lib.runs.event_files import append_scalars, read_scalars

REAL = sorted((Path(__file__).parents[1] / "formats" / "verl").iterdir())[0]  # TensorBoard 2.21 through torch
VALUES = st.dictionaries(st.text(min_size=1, max_size=20), st.floats(), max_size=4)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), VALUES), max_size=4), st.floats(0, 1e10))
def test_written_scalars_are_read_back_as_float32(tmp_path_factory, steps, wall_time_s):
    file = tmp_path_factory.mktemp("e") / "events.out.tfevents.1"
    for step, values in steps:
        append_scalars(file, wall_time_s, step, values)
    with np.errstate(over="ignore"):
        wanted = [
            (wall_time_s, s, tag, float(np.float32(v))) for s, values in steps for tag, v in values.items()
        ]
    read = list(read_scalars(file)) if steps else []
    assert [scalar[:3] for scalar in read] == [scalar[:3] for scalar in wanted]
    assert np.array_equal([scalar.value for scalar in read], [scalar[3] for scalar in wanted], equal_nan=True)


def test_records_have_the_bytes_of_the_real_library(tmp_path):
    file = tmp_path / "events.out.tfevents.1"
    scalars = [s for s in read_scalars(REAL) if math.isfinite(s.value)]
    for scalar in scalars:
        append_scalars(file, scalar.wall_time_s, scalar.step, {scalar.tag: scalar.value})
        record = file.read_bytes()[-(16 + 9 + 2 + 2 + 2 + 2 + len(scalar.tag) + 5) :]
        assert record in REAL.read_bytes()
    assert len(scalars) >= 10
