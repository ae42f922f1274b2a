"""The recipe's data: what is left out is counted, pictures are large enough, the split is the seed's."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from speceyes_lib.errors import DataError, UserError
from speceyes_lib.training import verl_data


def rows_of(path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def test_the_self_test_checks_what_it_generates(tmp_path):
    assert len(verl_data.self_test(tmp_path)) == 6


def test_rows_that_the_recipe_cannot_use_are_counted_by_reason(tmp_path):
    verl_data.write_example(tmp_path)
    rows = rows_of(tmp_path / verl_data.VSTAR)
    rows[0]["images"] = []
    rows[1]["images"][0]["bytes"] = b"no picture"
    rows[2]["prompt"] = rows[2]["prompt"][1:]
    rows[3]["prompt"][1]["content"] = "no place for it"
    rows[4]["extra_info"]["question"] = ""
    rows[5]["reward_model"]["ground_truth"] = None
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / verl_data.VSTAR)
    lines: list[str] = []
    counts = verl_data.prepare(tmp_path, tmp_path / "out", validation=5, charts=True, report=lines.append)
    held_out = len(rows_of(tmp_path / "out/val.parquet"))
    assert [counts[name] for name in ("rows", "train", "val", "scaled")] == [36, 30 - held_out, held_out, 4]
    assert sum(n for name, n in counts.items() if name.startswith("left out")) == 6
    assert len([name for name in counts if name.startswith("left out")]) == 6
    assert json.loads((tmp_path / "out/data.json").read_text())["counts"] == counts
    assert len(lines) == 3
    assert {row["data_source"] for row in rows_of(tmp_path / "out/train.parquet")} == {
        "vstar", "chart", "thinklite_eureka",
    }  # fmt: skip


def test_another_seed_is_another_split(tmp_path):
    verl_data.write_example(tmp_path)
    splits = []
    for seed in (0, 1, 0):
        verl_data.prepare(tmp_path, tmp_path / "out", validation=6, seed=seed, report=lambda _: None)
        splits.append([row["extra_info"]["id"] for row in rows_of(tmp_path / "out/val.parquet")])
    assert splits[0] == splits[2] != splits[1]


def test_what_is_missing_is_named_with_the_remedy(tmp_path):
    with pytest.raises(DataError, match=r"data_0\.1\.2_visual_toolbox_v2\.parquet and .* missing; download"):
        verl_data.prepare(tmp_path, tmp_path / "out")
    verl_data.write_example(tmp_path)
    with pytest.raises(UserError, match=r"validation = 24: must be between 1 and 23"):
        verl_data.prepare(tmp_path, tmp_path / "out", validation=24)
    file = tmp_path / verl_data.THINKLITE
    pq.write_table(pq.read_table(file).drop_columns("extra_info"), file)
    with pytest.raises(DataError, match=r"thinklite.*column 'extra_info' is missing; expected data_source"):
        verl_data.prepare(tmp_path, tmp_path / "out", validation=2)
    file.write_bytes(b"PAR1 cut off")
    with pytest.raises(DataError, match=r"thinklite.*is no readable Parquet file"):
        verl_data.prepare(tmp_path, tmp_path / "out", validation=2)
    assert not (tmp_path / "out").exists()
