"""The reported numbers are read as they stand, and their own totals agree."""

from __future__ import annotations

import numpy as np
import pytest

from speceyes_lib.analysis.reported import TABLES, read_reported
from speceyes_lib.errors import DataError
from speceyes_lib.tasks.registry import AVERAGE, TASKS


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_its_source(name):
    frame = read_reported(name)
    assert len(frame) > 0
    assert frame["source"].str.contains("2603.23483").all()


def test_the_average_is_the_unweighted_mean_of_the_seven_splits():
    table = read_reported("table1")
    for _, rows in table.groupby(["agent", "method", "confidence"]):
        by_split = rows.set_index("split")
        assert set(by_split.index) == {*TASKS, AVERAGE}
        mean = by_split.loc[list(TASKS), "accuracy_pct"].mean()
        assert by_split.loc[AVERAGE, "accuracy_pct"] == pytest.approx(mean, abs=0.006)


def test_the_headline_of_the_paper_is_there():
    table = read_reported("table1").set_index(["agent", "method", "confidence", "split"])
    row = table.loc[("deepeyes", "speceyes", "min", AVERAGE)]
    assert (row["accuracy_pct"], row["speedup"]) == (84.26, 1.73)


def test_the_agent_alone_has_no_threshold():
    table = read_reported("ablation_threshold")
    assert table.loc[table["is_baseline"], "threshold"].isna().all()
    assert np.isfinite(table.loc[~table["is_baseline"], "threshold"]).all()


def test_an_unknown_missing_or_damaged_table_is_named(tmp_path):
    with pytest.raises(DataError, match="did you mean 'table1'"):
        read_reported("tabel1")
    with pytest.raises(DataError, match=r"table1\.csv is missing"):
        read_reported("table1", tmp_path)
    (tmp_path / "table1.csv").write_text("agent,method\n")
    with pytest.raises(DataError, match="'confidence' is missing"):
        read_reported("table1", tmp_path)
    (tmp_path / "ablation_batch_size.csv").write_text("agent,split,batch_size,speedup,source\na,b,two,1,c\n")
    with pytest.raises(DataError, match="'batch_size' holds something"):
        read_reported("ablation_batch_size", tmp_path)
