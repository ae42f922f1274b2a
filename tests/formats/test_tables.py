"""A table of one's own results becomes a run; a score of one's own is added by sample id."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speceyes_lib.errors import DataError, UserError
from speceyes_lib.formats import import_table
from speceyes_lib.formats.tables import TRUTHS, import_score
from speceyes_lib.gating.separability import score_answer
from speceyes_lib.replay import load
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.verifying import verify
from speceyes_lib.workflow.cli import main

THREE = pd.DataFrame({"id": ["a", "b", "c"], "draft_right": [1, 0, 1], "confidence": [0.9, 0.2, 0.8]})
ALL = THREE.assign(
    agent_right=[1, 1, 0], draft_s=0.1, agent_s=[1.0, 2.0, 3.0], task=["x", "x", "y"], group=["p", "p", "q"]
)


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def data(run: str = "r"):
    return load(recorded_run.open(run))


def test_three_columns_make_a_run_without_an_agent():
    _, notes, problems = import_table(THREE, "r")
    read = data()
    assert list(read.ids) == ["table/all/a", "table/all/b", "table/all/c"]
    assert read.score("confidence").tolist() == [0.9, 0.2, 0.8]
    assert read.draft_right.tolist() == [True, False, True]
    assert (read.agent < 0).all()
    assert read.cost is None
    assert problems == []
    assert [note.rsplit(" ", 1)[1] for note in notes if note.startswith("not shown")] == [
        "agent_right", "agent_s", "top_logprobs", "group",
    ]  # fmt: skip


def test_verdicts_and_seconds_of_the_agent_are_those_of_the_baseline():
    import_table(ALL, "r")
    recorded = recorded_run.open("r")
    assert recorded.arms == ("collect", "baseline")
    assert recorded.tasks == ("table/x", "table/y")
    read = data()
    assert read.agent_right.tolist() == [True, True, False]
    assert read.cost.serial_s.tolist() == [1.0, 2.0, 3.0]
    assert read.groups.tolist() == ["p", "p", "q"]
    assert not [check for check in verify("r") if check.faults]


def test_log_probabilities_give_the_scores_of_the_suite():
    top = np.log([[0.6, 0.3, 0.1], [0.8, 0.15, 0.05]])
    table = THREE.assign(top_logprobs=[top.tolist(), json.dumps(top[:1, ::-1].tolist()), None])
    import_table(table, "r")
    read = data()
    assert read.k_stored == 3
    assert read.score("min", 3)[0] == pytest.approx(score_answer(top.astype(np.float32), "min", 3))
    assert read.score("log", 3)[1] == pytest.approx(0.6)
    assert np.isnan(read.score("min", 3)[2])


def test_any_task_name_becomes_a_folder_and_equal_ones_are_refused():
    table = pd.concat(
        [THREE.assign(task=name) for name in ("chart qa: 2", "vstar/direct_attributes", "ä/b/c")]
    )
    import_table(table, "r")
    assert recorded_run.open("r").tasks == ("vstar/direct_attributes", "table/chart_qa_2", "ä/b_c")
    _, _, problems = import_table(pd.concat([THREE.assign(task="a b"), THREE.assign(task="a?b")]), "s")
    assert len(problems) == 3
    assert "differ in characters" in str(problems[0])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_files_of_every_kind_give_the_same_run(tmp_path, suffix):
    path = tmp_path / f"mine{suffix}"
    if suffix == ".jsonl":
        ALL.to_json(path, orient="records", lines=True)
    elif suffix == ".parquet":
        ALL.to_parquet(path)
    else:
        ALL.to_csv(path, sep="\t" if suffix == ".tsv" else ";", index=False, encoding="utf-8-sig")
    import_table([path], "r")
    assert data().cost.serial_s.tolist() == [1.0, 2.0, 3.0]
    assert data().score("confidence").tolist() == [0.9, 0.2, 0.8]


def test_a_row_that_cannot_be_read_is_reported_and_the_rest_is_kept(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(
        "id,draft_right,confidence\na,1,0.9\nb,maybe,0.8\n,1,0.7\na,1,0.6\nc,0,high\nd,0,\n", "utf-8"
    )
    _, _, problems = import_table([path], "r")
    assert [(problem.line, str(problem).split("field ")[-1][:13]) for problem in problems[:2]] == [
        (3, "'draft_right'"), (4, "'id' is empty"),
    ]  # fmt: skip
    assert [problem.line for problem in problems] == [3, 4, 5, 6]
    assert data().ids.tolist() == ["table/all/a", "table/all/d"]
    assert np.isnan(data().score("confidence")[1])


def test_columns_are_mapped_and_a_wrong_one_is_named_with_the_nearest(tmp_path):
    path = tmp_path / "mine.csv"
    THREE.rename(columns={"confidence": "draft_conf"}).to_csv(path, index=False)
    with pytest.raises(
        UserError,
        match=r"no column 'confidence'.*There are id, draft_right, draft_conf.*--map confidence=COLUMN",
    ):
        import_table([path], "r")
    with pytest.raises(
        UserError, match=r"--map confidence=draft_con: no such column \(did you mean 'draft_conf'"
    ):
        import_table([path], "r", {"confidence": "draft_con"})
    with pytest.raises(UserError, match=r"--map confidenc: no such column \(did you mean 'confidence'"):
        import_table([path], "r", {"confidenc": "draft_conf"})
    import_table([path], "r", {"confidence": "draft_conf"})
    assert data().score("confidence").tolist() == [0.9, 0.2, 0.8]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.csv", "", "not readable as csv"),
        ("mine.parquet", "id,draft_right", "not readable as parquet"),
        ("mine.doc", "x", "expected a file ending in"),
        ("mine.csv", "id,id,confidence\n1,1,1\n", "column 'id' occurs twice"),
        ("mine.csv", "id,draft_right,confidence\n", "no row of this table"),
        ("mine.jsonl", "[1]\n", "no row of this table"),
    ],
)
def test_files_that_are_no_table_are_refused_in_words(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_text(content, "utf-8")
    with pytest.raises(DataError, match=message):
        import_table([path], "r")


def test_the_command_prints_the_certified_threshold(tmp_path, capsys):
    path = tmp_path / "mine.csv"
    right = np.arange(400) % 4 > 0
    table = pd.DataFrame(
        {"id": range(400), "ok": right, "sure": np.where(right, 0.9, 0.3) + np.arange(400) / 1e4}
    )
    table.to_csv(path, index=False)
    arguments = [
        "import",
        "table",
        str(path),
        "--run",
        "r",
        "--map",
        "draft_right=ok",
        "--map",
        "confidence=sure",
    ]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "AUROC 1.000" in out
    assert "certified above 0." in out
    assert main(arguments) == 0  # the same again changes nothing
    path.write_text(path.read_text("utf-8").replace("True", "False", 1), "utf-8")
    assert main(arguments) == 2
    assert "give another run name" in capsys.readouterr().err
    assert main([*arguments, "--replace"]) == 0


# ------------------------------------------------------------------------------------------- own scores


def test_a_score_is_added_by_id_in_any_order(tmp_path):
    import_table(ALL, "r")
    path = tmp_path / "mine.csv"
    path.write_text("sample,value\nc,3\ntable/x/a,1\n", "utf-8")
    ids = recorded_run.open("r").drafts()
    sentence, problems = import_score(path, "r", "mine", ids, {"id": "sample"}, replace=False)
    assert sentence.startswith("run r: 2 of 3 samples have the score mine")
    assert problems == []
    assert data().score("mine").tolist()[::2] == [1.0, 3.0]
    assert np.isnan(data().score("mine")[1])
    with pytest.raises(UserError, match="exists already"):
        import_score(path, "r", "mine", ids, {"id": "sample"}, replace=False)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("id,value\na,1\nzz,2\n", "mine", "1 of 2 ids are not of run r"),
        ("id,value\na,1\na,2\n", "mine", "occurs twice"),
        ("id,valu\na,1\n", "mine", r"no column 'value' \(did you mean 'valu'"),
        ("id,value\na,1\n", "min", "computed from the evidence"),
        ("id,value\na,1\n", "../x", "must be a plain name"),
    ],
)
def test_scores_that_cannot_be_matched_are_refused(tmp_path, content, name, message):
    import_table(THREE, "r")
    path = tmp_path / "mine.csv"
    path.write_text(content, "utf-8")
    with pytest.raises(UserError, match=message):
        import_score(path, "r", name, recorded_run.open("r").drafts(), {}, replace=False)


def test_an_id_that_two_tasks_have_must_be_written_in_full(tmp_path):
    import_table(pd.concat([THREE.assign(task="x"), THREE.assign(task="y")]), "r")
    path = tmp_path / "mine.csv"
    path.write_text("id,value\na,1\n", "utf-8")
    with pytest.raises(DataError, match="fits 2 samples; write it as 'table/x/a'"):
        import_score(path, "r", "mine", recorded_run.open("r").drafts(), {}, replace=False)


# ------------------------------------------------------------------------------------------- laws


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(TRUTHS)), st.floats(allow_nan=False, allow_infinity=False, width=32)
        ),
        min_size=1,
        max_size=8,
    )
)
def test_what_goes_in_comes_out(tmp_path_factory, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        words, values = zip(*rows, strict=True)
        table = pd.DataFrame(
            {"id": [f"{i:03}" for i in range(len(rows))], "draft_right": words, "confidence": values}
        )
        import_table(table.sample(frac=1, random_state=0), "r")
        read = data()
    assert read.draft_right.tolist() == [TRUTHS[word] for word in words]
    assert read.score("confidence").tolist() == pytest.approx(list(values))
