"""Tasks in GAIA's three layouts, with questions of our own."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from speceyes_lib.errors import DataError
from speceyes_lib.tasks.gaia import WITHHELD, load_gaia, missing_attachments

ROWS = [
    {
        "task_id": "t1",
        "Question": "How heavy is Korvan?",
        "Level": 1,
        "Final answer": "17",
        "file_name": "t1.csv",
    },
    {"task_id": "t2", "Question": "Who made Belin?", "Level": 2, "Final answer": "Ann, Bob", "file_name": ""},
    {"task_id": "t3", "Question": "Which is third?", "Level": 3, "Final answer": "?", "file_name": ""},
]


def as_folders(root, rows=ROWS, level=str):
    for i, row in enumerate(rows):
        folder = root / f"level{row['Level']}" / f"example_{i:03}"
        folder.mkdir(parents=True)
        content = {"task_id": row["task_id"], "question": row["Question"], "level": level(row["Level"])}
        content |= {"final_answer": row["Final answer"], "file_name": row["file_name"]}
        content["annotator_metadata"] = {"Number of steps": "3"}
        (folder / "metadata.json").write_text(json.dumps(content), "utf-8")
        if row["file_name"]:
            (folder / row["file_name"]).write_text("a,b\n1,2\n")
    return root


def as_lines(root, rows=ROWS):
    split = root / "2023" / "validation"
    split.mkdir(parents=True)
    lines = [json.dumps(row | {"Annotator Metadata": {"Number of steps": "3"}}) for row in rows]
    (split / "metadata.jsonl").write_text("\n".join(lines) + "\n\n", "utf-8")
    (split / "t1.csv").write_text("a,b\n1,2\n")
    return root


def as_parquet(root, rows=ROWS):
    split = root / "2023" / "validation"
    split.mkdir(parents=True)
    frame = pd.DataFrame(rows).assign(Level=lambda f: f["Level"].astype(str))
    frame["file_path"] = ["2023/validation/t1.csv", None, None]
    frame["Annotator Metadata"] = [{"Number of steps": "3"}] * len(frame)
    frame.to_parquet(split / "metadata.parquet")
    for level, part in frame.groupby("Level"):
        part.to_parquet(split / f"metadata.level{level}.parquet")
    (split / "t1.csv").write_text("a,b\n1,2\n")
    return root


@pytest.mark.parametrize("write", [as_folders, as_lines, as_parquet])
def test_all_layouts_give_the_same_tasks(tmp_path, write):
    tasks = load_gaia(write(tmp_path))
    facts = [(t.task_id, t.level, t.question, t.answer, t.attachment) for t in tasks]
    assert facts == [
        ("t1", 1, "How heavy is Korvan?", "17", "t1.csv"),
        ("t2", 2, "Who made Belin?", "Ann, Bob", ""),
        ("t3", 3, "Which is third?", WITHHELD, ""),
    ]
    assert tasks[0].metadata == {"Number of steps": "3"}
    assert tasks[0].attachment_path.read_text() == "a,b\n1,2\n"
    assert tasks[1].attachment_path is None
    assert [t.task_id for t in load_gaia(tmp_path, level=2)] == ["t2"]
    assert missing_attachments(tasks) == {}


@pytest.mark.parametrize("below", ["", "level1", "level1/example_000", "level1/example_000/metadata.json"])
def test_a_level_an_example_and_a_file_can_be_named(tmp_path, below):
    tasks = load_gaia(as_folders(tmp_path) / below)
    assert tasks[0].task_id == "t1"
    assert tasks[0].name == "example_000"
    assert len(tasks) == (1 if below else 3)


def test_level_files_alone_are_read_together(tmp_path):
    split = as_parquet(tmp_path) / "2023" / "validation"
    (split / "metadata.parquet").unlink()
    assert [t.task_id for t in load_gaia(split)] == ["t1", "t2", "t3"]


@pytest.mark.parametrize("level", [str, int, float])
def test_a_level_is_text_or_number(tmp_path, level):
    assert [t.level for t in load_gaia(as_folders(tmp_path, level=level))] == [1, 2, 3]


@pytest.mark.parametrize("level", ["", None, "4", "easy", True, 1.5])
def test_another_level_is_refused_with_file_and_field(tmp_path, level):
    as_folders(tmp_path, ROWS[:1], level=lambda _: level)
    with pytest.raises(DataError, match=r"metadata\.json, level: expected one of 1, 2, 3"):
        load_gaia(tmp_path)


def test_an_attachment_is_found_by_file_path_where_it_lies_elsewhere(tmp_path):
    as_lines(tmp_path, [ROWS[0] | {"file_path": "2023/files/t1.csv"}])
    (tmp_path / "2023/files").mkdir()
    (tmp_path / "2023/validation/t1.csv").rename(tmp_path / "2023/files/t1.csv")
    assert load_gaia(tmp_path)[0].attachment_path == tmp_path / "2023/files/t1.csv"


def test_a_missing_attachment_and_a_pointer_are_reported_and_leave_the_other_tasks(tmp_path):
    as_folders(tmp_path, [ROWS[0], ROWS[0] | {"task_id": "t4"}, ROWS[1]])
    (tmp_path / "level1/example_000/t1.csv").unlink()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    (tmp_path / "level1/example_001/t1.csv").write_text(pointer)
    missing = missing_attachments(load_gaia(tmp_path))
    assert set(missing) == {"t1", "t4"}
    assert "git lfs pull" in missing["t4"]


def test_the_workspace_of_an_agent_holds_no_right_answer(tmp_path):
    task = load_gaia(as_folders(tmp_path / "gaia"))[0]
    folder = task.workspace(tmp_path / "work")
    assert [path.name for path in folder.iterdir()] == ["t1.csv"]


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a\\b", "..", 7])
def test_an_attachment_outside_of_the_folder_is_refused(tmp_path, name):
    as_folders(tmp_path, [ROWS[1]])
    path = tmp_path / "level2/example_000/metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"file_name": name}))
    with pytest.raises(DataError, match="file_name"):
        load_gaia(tmp_path)


def test_what_is_no_layout_is_reported_with_what_was_expected(tmp_path):
    with pytest.raises(DataError, match=r"no tasks in the layout of GAIA; expected level1/example_000"):
        load_gaia(tmp_path)
    with pytest.raises(DataError, match="there is no such file or folder"):
        load_gaia(tmp_path / "none")
    (tmp_path / "level1/example_000").mkdir(parents=True)
    with pytest.raises(DataError, match=r"example_000: a task's folder without metadata\.json"):
        load_gaia(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "cannot be read as metadata"),
        ("[]", "expected an object"),
        ("{}", "task_id: expected a text"),
        ('{"task_id": "a", "question": null, "level": 1}', "question: expected a text"),
        ("\udcff", "cannot be read as metadata"),
    ],
)
def test_broken_metadata_is_reported_with_its_file(tmp_path, text, reason):
    path = tmp_path / "metadata.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=rf"metadata\.json.*{reason}"):
        load_gaia(path)


def test_a_broken_parquet_file_and_a_task_that_occurs_twice_are_reported(tmp_path):
    as_lines(tmp_path, [ROWS[0], ROWS[0]])
    with pytest.raises(DataError, match="task t1 occurs twice"):
        load_gaia(tmp_path)
    (tmp_path / "2023/validation/metadata.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"metadata\.parquet: cannot be read"):
        load_gaia(tmp_path)
