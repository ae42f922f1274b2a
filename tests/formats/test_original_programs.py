"""What the original's programs do with its files, as documented, done with ours: nothing may fail or differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import write_answers, write_run

from speceyes_lib.errors import ConfigError
from speceyes_lib.formats.importing import import_files
from speceyes_lib.formats.speceyes_export import export
from speceyes_lib.judging.stage import run_judging
from speceyes_lib.params import JudgingParams
from speceyes_lib.runs.reading import read_stage
from speceyes_lib.runs.records import AgentRecord, JudgedRecord
from speceyes_lib.tasks import registry
from speceyes_lib.workflow.cli import main

GATE_FIELDS = {
    "status": str, "error": str, "small_answer": str, "confidence_score": (int, float), "use_model": str,
    "generated_length": int, "judge_tc": str, "print_messages": list, "result": dict,
}  # fmt: skip
RESULT_FIELDS = {
    "vstar": {"image": str, "question": str, "answer": str, "pred_ans": str},
    "hr": {"idx": int, "question": str, "answer": str, "answer_str": str, "category": str, "pred_ans": str},
    "pope": {"pid": str, "idx": int, "question_id": str, "question": str, "answer": str, "image_source": str,
             "category": str, "pred_ans": str},
}  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory, scene_samples, benchmark_root) -> Iterator[Path]:
    """The files of a run with failed samples, samples that Phase I routed, rejected and accepted drafts."""
    folder = tmp_path_factory.mktemp("original")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(folder / "runs"))
        yield write_files(folder, scene_samples, benchmark_root)


def write_files(folder: Path, scene_samples: list, benchmark_root: Path) -> Path:
    models = {"draft_model": "models/small_1", "agent_model": "models/agent", "batch_size": 16}
    arms = write_run(
        "ours", scene_samples, benchmark_root, ["collect", "baseline", "gated"], failed=2, **models
    )
    assert {r.decision for r in arms["gated"].values()} == {"accepted", "rejected", "routed"}
    params = JudgingParams(run="ours", arms=["collect", "baseline", "gated"], data_root=str(benchmark_root))
    run_judging(params.model_copy(update={"if_changed": "restart", "protocol": "paper"}))
    export("ours", folder / "out")
    for summary in (folder / "out").rglob("latency_summary.json"):
        summary.unlink()  # the synthetic run took no time
    return folder / "out"


def verdicts_of(arm: str, source: str) -> Callable[[str, int], bool]:
    """In place of the judging model: whether the answer at a place of a task is right."""
    right = {}
    for task in registry.TASKS:
        for place, record in enumerate(
            read_stage("ours", f"03_judging/{arm}", task, JudgedRecord).records.values()
        ):
            right[task, place] = any(v.source == source and v.verdict == "right" for v in record.verdicts)
    return lambda task, place: right[task, place]


def judged_by_the_original(
    path: Path, task: str, is_right: Callable[[str, int], bool], seconds: float
) -> dict:
    """The sums that the original's judge computes from a file of answers; numpy's mean of nothing is null here."""
    accuracies, by_kind, errors, drafted = [], {"single": [], "cross": []}, [], []
    accepted = {"wrong": [], "right": []}
    by_mode: dict[str, dict] = {}
    answers = {"small": [], "large": []}
    lengths = {"small": [], "large": []}
    routers = {"yes": 0, "no": 0}
    for place, text in enumerate(path.read_text("ascii").splitlines()):
        line = json.loads(text)
        if line["status"] == "error":
            continue
        result = line["result"]
        assert isinstance(result["pred_ans"] + result["answer"] + result["question"], str)
        right = float(is_right(task, place))
        word = "right" if right else "wrong"
        confidence = line.get("confidence_score_infos", line.get("confidence_score", 0))
        if isinstance(confidence, dict):
            for mode, score in confidence.items():
                by_mode.setdefault(mode, {"wrong": [], "right": []})[word].append(score)
        else:
            if confidence > 0:
                drafted.append(confidence)
            who = "small" if line["use_model"] == "small" else "large"
            answers[who].append(right)
            lengths[who].append(line["generated_length"])
            if who == "small":
                accepted[word].append(confidence)
        if line.get("judge_tc") in routers:
            routers[line["judge_tc"]] += 1
        accuracies.append(right)
        if task.startswith("hr/"):
            by_kind[result["category"]].append(right)
        if not right:
            kept = {name: line.get(name, "") for name in ("result", "spec_reason_info", "print_messages")}
            errors.append(kept)
    mean = lambda values: float(np.mean(values)) if values else None  # noqa: E731
    percent = lambda values: mean(values) * 100 if values else None  # noqa: E731
    rounded = lambda values: round(mean(values), 1) if values else None  # noqa: E731
    sums = {"all_acc": percent(accuracies)}
    if task.startswith("hr/"):
        sums["acc_per_category"] = {kind: mean(values) for kind, values in by_kind.items()}
    sums |= {f"{who}_acc": percent(values) for who, values in answers.items()}
    sums |= {f"{who}_tokens": rounded(values) for who, values in lengths.items()}
    n_tokens = sum(map(sum, lengths.values()))
    sums["tokens_per_second"] = round(n_tokens / seconds, 1) if seconds > 0 else 0.0
    sums |= {
        "all_cnt": len(accuracies),
        "small_cnt": len(answers["small"]),
        "small_ratio": len(answers["small"]) / len(accuracies) * 100,
        "large_cnt": len(answers["large"]),
        "yes_cnt": routers["yes"],
        "no_cnt": routers["no"],
        "error_preds": errors,
    }
    if by_mode:
        return sums | {"conf_infos": by_mode}
    deciles = {str(p): round(float(np.quantile(drafted, p / 100)), 4) for p in range(10, 100, 10) if drafted}
    return sums | {"confidence_scores": deciles} | {f"confidence_scores_{k}": v for k, v in accepted.items()}


@pytest.mark.parametrize("arm", ["baseline", "gated", "drafts"])
def test_a_judges_file_is_what_the_originals_judge_makes_of_the_answers(exported, arm):
    is_right = verdicts_of("collect" if arm == "drafts" else arm, "draft" if arm == "drafts" else "final")
    folder = exported / ("eval_results_small-1" if arm == "drafts" else "eval_results_deepeyes/SpecEyes")
    judge_folder = Path(str(folder).replace("eval_results", "judge_results"))
    for task in registry.TASKS:
        pattern = {
            "baseline": "baseline_16_None_None",
            "gated": "small-1_16_min_0.97",
            "drafts": "small-1_16",
        }[arm]
        [path] = folder.glob(
            f"{task.replace('/', '_')}*{pattern}.jsonl"
        )  # flat, as the original looks for it
        stored = json.loads((judge_folder / path.name.replace(".jsonl", "_acc.jsonl")).read_text("utf-8"))
        computed = judged_by_the_original(path, task, is_right, 0.0)
        assert stored == computed
        if arm != "drafts":  # its order of modes is that of the answers
            assert json.dumps(stored) == json.dumps(computed)  # the order of fields, 0.0 and 0
        assert stored["yes_cnt"] + stored["no_cnt"] == (0 if arm == "drafts" else stored["all_cnt"])


@pytest.mark.parametrize("task", registry.TASKS)
def test_every_field_of_an_answer_has_the_originals_type(exported, task):
    benchmark = task.split("/")[0]
    for path in exported.glob(f"eval_results_deepeyes/SpecEyes/{task.replace('/', '_')}*.jsonl"):
        for place, text in enumerate(path.read_text("ascii").splitlines()):
            line = json.loads(text)
            for entry, fields in ((line, GATE_FIELDS), (line["result"], RESULT_FIELDS[benchmark])):
                assert list(entry) == list(fields)
                assert all(isinstance(entry[name], kind) for name, kind in fields.items())
            assert line["judge_tc"] == ("yes" if line["confidence_score"] == -1 else "no")
            assert line["result"].get("idx", place) == place
            assert line["small_answer"] == (
                line["result"]["pred_ans"] if line["use_model"] == "small" else ""
            )
            assert all(message["role"] in ("user", "assistant") for message in line["print_messages"])
    for path in exported.glob(f"eval_results_small-1/{task.replace('/', '_')}*.jsonl"):
        for text in path.read_text("ascii").splitlines():
            line = json.loads(text)
            assert list(line) == ["status", "error", "small_answer", "confidence_score_infos", "result"]
            assert list(line["confidence_score_infos"]) == ["log", "min", "mean", "bottom20"]
            assert all(isinstance(score, int | float) for score in line["confidence_score_infos"].values())


def test_acceptance_and_speedup_can_be_computed_from_the_files_of_a_gated_run(exported):
    for path in exported.glob("judge_results_deepeyes/SpecEyes/*_min_0.97_acc.jsonl"):
        sums = json.loads(path.read_text("utf-8").replace("NaN", "null"))
        beta = sums["no_cnt"] / (sums["yes_cnt"] + sums["no_cnt"])
        assert sums["small_ratio"] / beta <= 100
    for path in exported.glob("judge_results_small-1/*_acc.jsonl"):
        infos = json.loads(path.read_text("utf-8").replace("NaN", "null"))["conf_infos"]
        for mode in ("min", "mean", "bottom20", "log"):
            assert np.sort(np.array(infos[mode]["wrong"] + infos[mode]["right"])).dtype == float


def test_seconds_are_rounded_and_sorted_by_file(tmp_path, exported, benchmark_root):
    gated = read_stage("ours", "02_gated", "pope/random", AgentRecord)
    config = {"data_root": str(benchmark_root), "agent_model": "Thyme", "draft_model": "b", "score": "min"}
    write_answers("timed", {"gated": gated.records}, config | {"k": 64})
    folder = exported.parent / "runs" / "timed" / "02_gated" / "pope" / "random"
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(
        json.dumps(manifest | {"timing": {"wall_s": 12.345678}, "checksum": ""})
    )
    [*_, summary] = export("timed", tmp_path / "timed_out")
    name = "pope_random_Thyme_b_1_min_0.97.jsonl"
    assert summary == tmp_path / "timed_out" / "eval_results_thyme" / "SpecEyes" / "latency_summary.json"
    assert json.loads(summary.read_text()) == {name: 12.3457}


def test_the_names_of_models_can_be_chosen(tmp_path, exported, capsys):
    names = ["--agent-name", "DeepEyes-7B", "--draft-name", "Qwen3-VL-2B-Instruct"]
    out = tmp_path / "named"
    assert main(["export", "ours", str(out), "--tasks", "pope/random", *names]) == 0
    assert sorted(path.relative_to(out).as_posix() for path in out.glob("eval_*/**/*.jsonl")) == [
        "eval_results_Qwen3-VL-2B-Instruct/pope_random_Qwen3-VL-2B-Instruct_16.jsonl",
        "eval_results_deepeyes/SpecEyes/pope_random_DeepEyes-7B_Qwen3-VL-2B-Instruct_16_min_0.97.jsonl",
        "eval_results_deepeyes/SpecEyes/pope_random_DeepEyes-7B_baseline_16_None_None.jsonl",
    ]
    for name in ("../x", "a_b", ""):
        with pytest.raises(ConfigError, match="cannot be part of a file name"):
            export("ours", out, models={"agent_model": name})
    assert main(["export", "../ours", str(out)]) == 2
    assert "must be a plain folder name" in capsys.readouterr().err


def test_wrong_answers_of_the_originals_judge_decide_what_no_rule_decides(exported, benchmark_root):
    """Files that only the sums and lists of the judge decide: all answers are in words."""
    runs, problems = import_files("speceyes", [exported], "back", str(benchmark_root))
    assert (list(runs), problems) == (["back"], [])
    decided = {}
    for task in registry.TASKS:
        for arm in ("baseline", "gated"):
            back, ours = (
                read_stage(run, f"03_judging/{arm}", task, JudgedRecord).records for run in ("back", "ours")
            )
            for id_, record in back.items():
                verdict, before = record.verdicts[0], ours[id_].verdicts[0]
                assert (verdict.verdict == "right") == (before.verdict == "right")
                decided[verdict.rule] = decided.get(verdict.rule, 0) + 1
    assert decided["judge_error_preds"] > 10


def test_a_rejected_draft_without_its_text_stays_a_rejected_draft(exported, benchmark_root):
    import_files("speceyes", [exported], "back", str(benchmark_root))
    for task in registry.TASKS:
        back, ours = (read_stage(run, "02_gated", task, AgentRecord).records for run in ("back", "ours"))
        assert {i: (r.decision, r.confidence) for i, r in back.items()} == {
            i: (r.decision, r.confidence) for i, r in ours.items()
        }
