"""DeepEyes' result files, lmms-eval's sample logs, VLMEvalKit's tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from speceyes_lib.errors import DataError
from speceyes_lib.formats.importing import import_files, import_report
from speceyes_lib.judging.stage import judge_record
from speceyes_lib.runs.reading import read_manifest, read_stage
from speceyes_lib.runs.records import AgentRecord, JudgedRecord
from speceyes_lib.tasks import registry


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def write_lines(path: Path, lines: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), "utf-8")
    return path


def write_table(path: Path, rows: list[dict]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def records(task: str) -> dict[str, AgentRecord]:
    return read_stage("r", "02_baseline", task, AgentRecord).records


def verdicts(task: str) -> dict[str, tuple[str, str]]:
    judged = read_stage("r", "03_judging/baseline", task, JudgedRecord).records
    return {i: (r.verdicts[0].verdict, r.verdicts[0].rule) for i, r in judged.items()}


# ----------------------------------------------------------------------------------------------- DeepEyes

VSTAR = "vstar/relative_position"
SAID = {
    "image": "sa_1.jpg",
    "question": "Is the dog on the left?",
    "answer": "yes, it is",
    "pred_ans": "A",
    "pred_output": [{"role": "assistant", "content": "<answer>A</answer>"}],
    "status": "success",
}
FAILED = SAID | {"image": "sa_2.jpg", "pred_ans": "", "status": "error", "pred_output": []}


def test_deepeyes_answers_are_a_baseline_without_verdicts(tmp_path):
    path = write_lines(tmp_path / "result_relative_position_qwen.jsonl", [SAID, FAILED])
    _, problems = import_files("deepeyes", [path], "r")
    first, second = records(VSTAR).values()
    assert (first.answer, first.decision, [t.text for t in first.trajectory.turns]) == (
        "A", "baseline", ["<answer>A</answer>"],
    )  # fmt: skip
    assert (second.status, second.answer) == ("error", None)
    assert problems == []
    assert not (tmp_path / "runs/r/03_judging").exists()


def test_of_deepeyes_files_of_one_split_the_judged_one_counts_and_keeps_errors(tmp_path):
    write_lines(tmp_path / "result_relative_position_qwen.jsonl", [SAID, FAILED])
    third = SAID | {"image": "sa_3.jpg", "pred_ans": "B"}
    judged = [
        SAID | {"acc": 1},
        FAILED | {"acc": 0},
        third | {"acc": 0.0},
        third | {"image": "x.jpg", "acc": "?"},
    ]
    write_lines(tmp_path / "result_relative_position_qwen_acc.jsonl", judged)
    _, problems = import_files("deepeyes", [tmp_path], "r")
    assert [v for v, _ in verdicts(VSTAR).values()] == ["right", "error", "wrong", "undecided"]
    assert ["'acc' is '?'" in p.what for p in problems] == [True]
    assert read_manifest("r", "03_judging/baseline", VSTAR).config["protocol"] == "imported"


# ---------------------------------------------------------------------------------------------- lmms-eval


def lmms(doc: dict, reply: str, target: str, metric: dict) -> dict:
    return {
        "doc_id": 0,
        "target": target,
        "filtered_resps": [reply],
        "resps": [[reply]],
        "doc": doc,
        "input": "",
    } | metric


def test_lmms_eval_samples_are_found_by_question_and_their_order_of_options_is_kept(tmp_path, benchmark_root):
    samples = registry.load_task("vstar/direct_attributes", benchmark_root)
    questions = [(s.question, frozenset(s.options)) for s in samples]
    sample = next(s for s, text in zip(samples, questions, strict=True) if questions.count(text) == 1)
    shown = sample.options[1:] + sample.options[:1]
    text = sample.question + " " + " ".join(f"({c}) {o}" for c, o in zip("ABCD", shown, strict=False))
    letter = "ABCD"[len(shown) - 1]
    doc = {"question_id": "17", "category": "direct_attributes", "text": text, "label": letter}
    line = lmms(doc, letter, letter, {"vstar_overall_acc": {"question_id": "17", "score": 1.0}})
    write_lines(tmp_path / "20250101_000000_samples_vstar_bench.jsonl", [line])
    _, problems = import_files("lmms-eval", [tmp_path], "r", str(benchmark_root))
    [record] = records("vstar/direct_attributes").values()
    assert record.id == sample.id
    assert [sample.options[i] for i in record.options_shown.order] == list(shown)
    assert verdicts(sample.task) == {sample.id: ("right", "lmms_eval")}
    assert [p.what for p in problems] == ["5 of 6 samples of vstar/direct_attributes have no row"]
    # our own judging reads the letter in the order shown
    assert judge_record(sample, record).verdicts[0].verdict == "right"
    assert (
        judge_record(sample, record.model_copy(update={"options_shown": None})).verdicts[0].verdict != "right"
    )


def test_lmms_eval_hr_bench_and_pope_without_the_benchmark(tmp_path):
    hr = {"index": 3, "question": "What?", "A": "x", "B": "y", "C": "z", "D": "w", "category": "single"}
    score = {"average": {"index": 3, "gpt_score": 0}}
    write_lines(tmp_path / "d_samples_hrbench4k.jsonl", [lmms(hr, "A", "B", score)])
    pope = {"question_id": "5", "question": "Is there?", "answer": "yes", "category": "popular"}
    lines = [
        lmms(pope, "yes", "yes", {"pope_accuracy": {"score": 1.0}}),
        lmms(pope | {"category": "odd"}, "", "", {}),
    ]
    write_lines(tmp_path / "d_samples_pope.jsonl", lines)
    _, problems = import_files("lmms-eval", [tmp_path], "r")
    assert verdicts("hr/hr_bench_4k") == {"hr/hr_bench_4k/3": ("wrong", "lmms_eval")}
    assert verdicts("pope/popular") == {"pope/popular/5": ("right", "lmms_eval")}
    assert [(p.line, "'category' is 'odd'" in p.what) for p in problems] == [(2, True)]


def without_doc(number: int, sample, reply: str, task: str) -> dict:
    """A line as lmms-eval writes it since 0.4: no document, and a row number that starts at 0."""
    options = "".join(f"\n({c}) {o}" for c, o in zip("ABCD", sample.options or (), strict=False))
    prompt = f"{sample.question}{options}\nAnswer with one word."
    score = {"question_id": str(number + 1), "category": sample.split, "score": float(reply == sample.answer)}
    return {
        "doc_id": number,
        "target": sample.answer,
        "input": prompt,
        "filtered_resps": [reply],
        task: score,
    }


@pytest.mark.parametrize("task", ["vstar/direct_attributes", "vstar/relative_position"])
def test_lmms_eval_lines_without_a_document_are_joined_by_the_question_in_the_prompt(
    tmp_path, benchmark_root, task
):
    samples = registry.load_task(task, benchmark_root)
    lines = [without_doc(i, s, "AB"[i % 2], "vstar_overall_acc") for i, s in enumerate(samples)]
    write_lines(tmp_path / "d_samples_vstar_bench.jsonl", lines)
    _, problems = import_files("lmms-eval", [tmp_path], "r", str(benchmark_root))
    wordings = [(s.question, frozenset(s.options)) for s in samples]
    known = {s.id: "AB"[i % 2] for i, s in enumerate(samples) if wordings.count(wordings[i]) == 1}
    assert {i: r.answer for i, r in records(task).items()} == known
    assert len(problems) == len(samples) - len(known) + (len(samples) > len(known))


def test_lmms_eval_ids_that_are_not_the_benchmarks_refuse_the_file(tmp_path, benchmark_root):
    samples = registry.load_task("pope/random", benchmark_root)
    lines = [without_doc(i, s, "yes", "pope_accuracy") | {"input": ""} for i, s in enumerate(samples)]
    for line, s in zip(lines, samples, strict=True):
        line["pope_accuracy"]["question_id"] = s.key
    write_lines(tmp_path / "d_samples_pope_random.jsonl", lines)
    _, problems = import_files("lmms-eval", [tmp_path], "r", str(benchmark_root))
    assert problems == []
    assert list(records("pope/random")) == [s.id for s in samples]

    before = [samples[-1].key, *(s.key for s in samples[:-1])]
    for line, key in zip(lines, before, strict=True):
        line["pope_accuracy"]["question_id"] = key
    write_lines(tmp_path / "d_samples_pope_random.jsonl", lines)
    with pytest.raises(
        DataError, match=r"its ids are not the benchmark's.*nothing of this file was imported"
    ):
        import_files("lmms-eval", [tmp_path], "again", str(benchmark_root))


def test_lmms_eval_row_numbers_identify_nothing(tmp_path, benchmark_root):
    line = {"doc_id": 0, "target": "yes", "filtered_resps": ["yes"], "pope_accuracy": {"score": 1.0}}
    write_lines(tmp_path / "d_samples_pope_adv.jsonl", [line])
    for root in (None, str(benchmark_root)):
        with pytest.raises(DataError, match=r"does not name its sample|is not in the benchmark"):
            import_files("lmms-eval", [tmp_path], "r", root)


@pytest.mark.parametrize("before", ["\n", " ", "\nPlease "])
def test_lmms_eval_prompts_with_an_instruction_behind_the_options(tmp_path, benchmark_root, before):
    instruction = f"{before}Answer with the option's letter from the given choices directly."
    samples = registry.load_task("vstar/direct_attributes", benchmark_root)
    wordings = [(s.question, frozenset(s.options)) for s in samples]
    sample = next(s for s, words in zip(samples, wordings, strict=True) if wordings.count(words) == 1)
    shown = sample.options[1:] + sample.options[:1]
    text = "".join(f"\n({c}) {o}" for c, o in zip("ABCD", shown, strict=True))
    doc = {"question_id": "0", "label": "D", "text": f"{sample.question}{text}{instruction}"}
    metric = {
        "vstar_overall_acc": {"category": "direct_attributes", "score": 1.0}
    }  # the only place of the split
    write_lines(tmp_path / "d_samples_vstar_bench.jsonl", [lmms(doc, "D", "D", metric)])
    import_files("lmms-eval", [tmp_path], "r", str(benchmark_root))
    [record] = records("vstar/direct_attributes").values()
    assert [sample.options[i] for i in record.options_shown.order] == list(shown)


@pytest.mark.parametrize("source", ["deepeyes", "lmms-eval", "vlmevalkit"])
def test_thoughts_are_no_part_of_an_imported_answer(tmp_path, source):
    reply = "<think>Is it A? No.</think>\nB"
    if source == "deepeyes":
        said = SAID | {"pred_ans": reply, "pred_output": [{"role": "assistant", "content": reply}]}
        path, task = write_lines(tmp_path / "result_relative_position_qwen.jsonl", [said]), VSTAR
    else:
        task = "hr/hr_bench_4k"
        row = {"index": 3, "question": "What?", "A": "x", "B": "y", "C": "z", "D": "w", "category": "single"}
        if source == "lmms-eval":
            path = write_lines(tmp_path / "d_samples_hrbench4k.jsonl", [lmms(row, reply, "B", {})])
        else:
            path = write_table(tmp_path / "model_HRBench4K.tsv", [row | {"answer": "B", "prediction": reply}])
    import_files(source, [path], "r")
    [record] = records(task).values()
    assert record.answer == "B"
    assert [turn.text for turn in record.trajectory.turns] == [reply]


# --------------------------------------------------------------------------------------------- VLMEvalKit


def rows_of(task: str, root: Path) -> list[dict]:
    rows = []
    for number, s in enumerate(registry.load_task(task, root)):
        columns = dict(zip("ABCD", [*(s.options or ()), "", "", "", ""], strict=False))
        row = {"index": number, "question": s.question, **columns, "answer": s.answer, "category": s.split}
        rows.append(row | {"prediction": s.answer, "hit": 1})
    return rows


def test_vlmevalkit_rows_are_found_among_the_four_orders_of_a_question(tmp_path, benchmark_root):
    samples = {s.id: s for s in registry.load_task("hr/hr_bench_4k", benchmark_root)}
    rows = [row | {"index": 900 + i} for i, row in enumerate(rows_of("hr/hr_bench_4k", benchmark_root))]
    rows[0] |= {"prediction": "Z", "hit": 0}
    rows[1] |= {"hit": ""}
    write_table(tmp_path / "model_HRBench4K.tsv", rows)
    _, problems = import_files("vlmevalkit", [tmp_path], "r", str(benchmark_root))
    assert problems == []
    got = records("hr/hr_bench_4k")
    assert list(got) == list(samples)  # each row has another order of options
    assert all(r.options_shown is None for r in got.values())
    decided = [v for v, _ in verdicts("hr/hr_bench_4k").values()]
    assert decided == ["wrong", "undecided"] + ["right"] * (len(rows) - 2)


def test_vlmevalkit_pope_questions_that_repeat_are_not_guessed(tmp_path, benchmark_root):
    rows = rows_of("pope/random", benchmark_root)
    write_table(tmp_path / "model_POPE.tsv", rows)
    samples = registry.load_task("pope/random", benchmark_root)
    questions = [s.question for s in samples]
    once = [s.id for s in samples if questions.count(s.question) == 1]
    assert len(once) < len(samples)
    if once:
        _, problems = import_files("vlmevalkit", [tmp_path], "r", str(benchmark_root))
        assert list(records("pope/random")) == once
    else:
        with pytest.raises(DataError, match="fits"):
            import_files("vlmevalkit", [tmp_path], "r", str(benchmark_root))
    with_ids = [row | {"question_id": s.key} for row, s in zip(rows, samples, strict=True)]
    write_table(tmp_path / "model_POPE.tsv", with_ids)
    _, problems = import_files("vlmevalkit", [tmp_path], "r", str(benchmark_root), replace=True)
    assert list(records("pope/random")) == [s.id for s in samples]
    assert problems == []


def test_vlmevalkit_pope_row_of_several_splits_counts_in_each(tmp_path, benchmark_root):
    row = {"index": 7, "question": "Is there a dog?", "answer": "yes", "prediction": "Yes", "hit": 1}
    rows = [row | {"category": "adversarial,popular"}, row | {"index": 8, "category": "random, popular"}]
    write_table(tmp_path / "model_POPE.tsv", rows)
    runs, problems = import_files("vlmevalkit", [tmp_path], "r")
    assert problems == []
    assert {split: list(records(f"pope/{split}")) for split in ("adversarial", "popular", "random")} == {
        "adversarial": ["pope/adversarial/7"],
        "popular": ["pope/popular/7", "pope/popular/8"],
        "random": ["pope/random/8"],
    }
    assert "pope/popular: 2 of 3,000 samples, 0 failed" in "\n".join(import_report(runs))

    samples = registry.load_task("pope/random", benchmark_root)
    rows = [
        row
        | {
            "question": s.question,
            "answer": s.answer,
            "category": "random",
            "image_path": s.meta["image_source"],
        }
        for s in samples
    ]
    write_table(tmp_path / "model_POPE.tsv", rows)
    import_files("vlmevalkit", [tmp_path], "with_pictures", str(benchmark_root))
    read = read_stage("with_pictures", "02_baseline", "pope/random", AgentRecord).records
    assert list(read) == [s.id for s in samples]


def test_broken_tables_are_told(tmp_path):
    rows = [{"index": i, "question": "Q", "category": "cross", "prediction": "A", "hit": 1} for i in (1, 2)]
    path = write_table(tmp_path / "model_HRBench8K.tsv", rows)
    path.write_text(path.read_text() + "3\tonly three\tfields\n4\tQ\tcross\tB\t0\textra\n")
    _, problems = import_files("vlmevalkit", [tmp_path], "r")
    assert len(records("hr/hr_bench_8k")) == 2
    assert [(p.line, p.what) for p in problems] == [
        (4, "3 fields, but the header names 5"),
        (5, "6 fields, but the header names 5"),
    ]
    write_table(tmp_path / "model_VStarBench.tsv", [{"index": 1, "answer": "A"}])
    with pytest.raises(DataError, match="column 'prediction' is missing"):
        import_files("vlmevalkit", [tmp_path], "again")


def test_a_table_in_another_encoding_is_refused_with_its_line(tmp_path):
    rows = [
        {"index": i, "question": q, "category": "cross", "prediction": "A"}
        for i, q in enumerate(("Q", "groß"))
    ]
    path = write_table(tmp_path / "model_HRBench8K.tsv", rows)
    path.write_bytes(path.read_text("utf-8").encode("latin-1"))
    with pytest.raises(DataError, match=r"model_HRBench8K\.tsv, line 3: not UTF-8 .* save the file as UTF-8"):
        import_files("vlmevalkit", [tmp_path], "r")


def test_excel_tables_need_a_package_and_say_so(tmp_path, monkeypatch):
    import importlib.util

    (tmp_path / "model_POPE.xlsx").write_bytes(b"PK")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="openpyxl"):
        import_files("vlmevalkit", [tmp_path], "r")
