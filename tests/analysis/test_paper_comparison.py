"""Notebook 05 with whatever a run has: what is there is shown, what is missing is named, what is broken is refused."""

from __future__ import annotations

import json

import pytest
from synthetic_run import TASKS, make_run, write_answers, write_verdicts

from speceyes_lib.analysis import paper_comparison, run_result, sample_frame, summary
from speceyes_lib.errors import StageError
from speceyes_lib.params import FiguresParams
from speceyes_lib.paths import run_dir, stage_dir
from speceyes_lib.report import outputs, table1
from speceyes_lib.report.paper_table import missing_rows
from speceyes_lib.report.plots import ablations, cost, gate, method
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.stage import finish_stage

ARMS = ["collect", "baseline", "gated", "gated_batched"]
MADE = {"k": 32, "agent_batch_size": 1, "agent": "thyme"}


def store(run: str, tasks=TASKS, arms=ARMS, seed: int = 0) -> None:
    drawn, judged = make_run(per_task=4, tasks=tasks, seed=seed)
    write_answers(run, {a: drawn[a] for a in arms}, MADE)
    write_verdicts(run, {a: judged[a] for a in arms})


def choose(run: str) -> str:
    """Notebook 04_threshold's choice on a validation run."""
    frame = sample_frame.samples(recorded_run.open(run), ["collect"])
    point = summary.choose_threshold(frame).as_dict()
    point["chosen_on"] = {"run": run, "tasks": list(TASKS), "score": "min", "protocol": "strict"}
    folder = finish_stage(run, "04_threshold", {}, {"operating_point.json": point}, len(frame))
    return str(folder / "operating_point.json")


@pytest.fixture(scope="module")
def point(tmp_path_factory):
    """A whole run `r`, chosen for on a validation run `v`, and partial ones; the path of `v`'s operating point."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        store("v", arms=["collect"], seed=1)
        store("r")
        yield choose("v")


def gathered(run: str = "r", **changed) -> paper_comparison.PaperData:
    params = FiguresParams(**{"run": run, "arms": ARMS, "threshold_from": "", "bootstrap": 100} | changed)
    return paper_comparison.gather_paper(params, run_result.summarised(params))


def shown(paper: paper_comparison.PaperData) -> dict:
    """Everything notebook 05 draws, by name; what there is nothing for is absent."""
    results = paper.results()
    drawn = {"table": table1(results), "scatter": gate.accuracy_speedup(results)}
    drawn["method"] = method.method_diagram(paper.shares())
    for name, sweep, draw in (
        ("threshold", paper.threshold_sweep(), ablations.threshold_ablation),
        ("topk", paper.topk_sweep(), ablations.topk_ablation),
        ("score", paper.score_sweep(), ablations.score_ablation),
        (
            "batch",
            paper.batch_sweep(),
            lambda s: ablations.batch_size_ablation(s, s.assign(gain_per_query=0.1)),
        ),
        ("router", paper.router_sweep(), ablations.router_ablation),
        ("throughput", paper.throughput(), cost.throughput),
    ):
        if len(sweep):
            drawn[name] = draw(sweep)
    return drawn


ALL = {"table", "scatter", "method", "threshold", "topk", "score", "batch", "router", "throughput"}


# ------------------------------------------------------------------ whole
def test_a_whole_run_gives_every_table_and_figure(point):
    paper = gathered(threshold_from=point)
    assert set(shown(paper)) == ALL
    results = paper.results()
    replayed = results[results["how"].eq("replayed")]
    assert set(replayed["method"]) == {"speceyes_mean", "speceyes_bottom20", "speceyes_log"}
    assert set(results[results["source"] == "reported"]["agent"]) == {"none", "deepeyes", "thyme"}


def test_the_run_is_drawn_into_its_own_agents_panels(point):
    sweep = gathered().threshold_sweep()
    assert set(sweep[sweep["source"] == "measured"]["agent"]) == {"thyme"}
    assert set(sweep[sweep["source"] == "reported"]["agent"]) == {"deepeyes", "thyme"}


def test_the_replayed_sweep_meets_the_run_at_its_own_threshold(point):
    paper = gathered()
    sweep = paper.threshold_sweep()
    measured = sweep[(sweep["source"] == "measured") & (sweep["threshold"] == paper.gate["threshold"])]
    ran = paper.run.summary["arms"]["gated"]["splits"]
    assert measured.set_index("split")["accuracy_pct"].to_dict() == pytest.approx(
        {split: entry["accuracy_pct"] for split, entry in ran.items()}
    )


@pytest.mark.parametrize("source", ["run", "both", "reported"])
def test_only_the_sources_asked_for_are_shown(point, source):
    paper = gathered(source=source)
    wanted = {"run": {"measured"}, "reported": {"reported"}, "both": {"reported", "measured"}}[source]
    assert set(paper.results()["source"]) == wanted
    for sweep in (paper.threshold_sweep(), paper.batch_sweep()):
        assert set(sweep["source"]) == wanted
        assert paper.source(sweep) == ("both" if len(wanted) > 1 else next(iter(wanted)))


def test_further_runs_stand_below_the_run(point):
    store("other", arms=["baseline", "gated"], seed=3)
    other = gathered("other", arms=["baseline", "gated"], source="run")
    outputs.write_figures_stage(
        other.params, other.run, other.results(), outputs.open_album(other.params, outputs.FIGURES)
    )
    results = gathered(source="run", more_runs=["other"]).results()
    assert list(dict.fromkeys(results["agent"])) == ["r", "other"]
    with pytest.raises(StageError, match="05_paper_figures"):
        gathered(source="run", more_runs=["nobody"]).results()


# ------------------------------------------------------------------ partial
def test_nothing_but_reported_numbers_needs_no_run(point):
    paper = gathered("never", source="reported")
    assert set(shown(paper)) == {"table", "scatter", "method", "threshold", "topk", "batch"}
    assert paper.missing == []
    assert not run_dir("never").exists()


@pytest.mark.parametrize(
    ("arms", "tasks", "absent", "text"),
    [
        (ARMS, TASKS[:1], set(), "no samples of V* relative"),
        (["collect", "gated"], TASKS[:2], set(), "without its agent alone there are no speedups"),
        (["baseline", "gated"], TASKS[:2], ALL - {"table", "scatter", "method"}, "does not have"),
        (["collect", "baseline"], TASKS[:2], ALL - {"table", "scatter", "method"}, "no arm `gated`"),
        (["baseline"], TASKS[:2], ALL - {"table", "scatter", "method"}, "does not have"),
    ],
    ids=["one split", "no baseline", "no collect", "no gated", "agent alone"],
)
def test_a_partial_run_gives_what_it_has_and_names_the_rest(point, arms, tasks, absent, text):
    run = f"part-{'-'.join(arms)}-{len(tasks)}"
    store(run, tasks=tasks, arms=arms)
    paper = gathered(run, arms=arms, tasks=list(tasks), source="run")
    assert set(shown(paper)) == ALL - absent
    results = paper.results()
    assert set(results["source"]) == {"measured"}
    assert set(results["split"]) == {*tasks, "average"}
    sentences = " ".join([*missing_rows(results), *paper.missing])
    assert text in sentences
    folder = outputs.write_figures_stage(
        paper.params, paper.run, results, outputs.open_album(paper.params, outputs.FIGURES)
    )
    assert (folder / "table1.tex").is_file()


def test_without_a_validation_run_no_other_score_is_replayed(point):
    paper = gathered()
    assert "how" not in paper.results() or not paper.results()["how"].eq("replayed").any()
    assert "no validation run to choose on" in " ".join(paper.missing)


def test_settings_the_run_cannot_answer_are_named(point):
    paper = gathered(source="run")  # scores at K = 32, and no token evidence to compute others from
    assert set(paper.topk_sweep()["top_k"].dropna()) == {32}
    assert [m.split(":")[0] for m in paper.missing if m.startswith("k ")] == ["k 48", "k 64", "k 80", "k 96"]


def test_what_is_missing_is_named_once_however_often_it_is_asked_for(point):
    paper = gathered(source="run")
    shown(paper)
    once = list(paper.missing)
    assert len(once) > 1
    shown(paper)
    assert paper.missing == once


# ------------------------------------------------------------------ refused
def rewrite(run: str, stage: str, task: str, **changed) -> None:
    path = stage_dir(run, stage, task) / "manifest.json"
    text = json.loads(path.read_text())
    for key, value in changed.items():
        text[key] = text[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(text | {"checksum": ""}))


@pytest.fixture
def two(tmp_path, monkeypatch):
    """A small run of two arms, to be broken."""
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    store("two", tasks=TASKS[:2], arms=["baseline", "gated"])
    return lambda: gathered("two", arms=["baseline", "gated"], tasks=list(TASKS[:2]))


@pytest.mark.parametrize("stage", ["02_gated", "03_judging/gated"])
def test_a_stage_of_another_schema_version_is_refused(two, stage):
    rewrite("two", stage, TASKS[1], schema_version=999)
    with pytest.raises(StageError, match="schema version 999"):
        two()


def test_records_that_are_not_those_of_their_manifest_are_refused(two):
    path = stage_dir("two", "02_gated", TASKS[0]) / "records.jsonl"
    path.write_bytes(b"\n".join(path.read_bytes().splitlines()[:-1]) + b"\n")
    with pytest.raises(StageError, match="is not the file its manifest describes"):
        two()


@pytest.mark.parametrize(
    ("stage", "key", "name", "word", "notebook"),
    [
        ("02_gated", "inputs", "code", "code", "02_gated_agent_eval"),
        ("02_gated", "inputs", "agent_model", "agent model", "02_gated_agent_eval"),
        ("02_gated", "inputs", "data", "data", "02_gated_agent_eval"),
        ("03_judging/gated", "inputs", "code", "code", "03_judging"),
    ],
)
def test_arms_made_from_different_things_are_not_compared(two, stage, key, name, word, notebook):
    other = stage.replace("gated", "baseline")
    for task in TASKS[:2]:
        for at, value in ((stage, "a"), (other, "a")):
            rewrite("two", at, task, **{key: {name: f"{value} {task if name == 'data' else ''}"}})
    assert two().results()["n"].notna().any()  # alike: accepted
    rewrite("two", stage, TASKS[1], **{key: {name: "b"}})
    with pytest.raises(StageError, match=rf"differ in their {word}.*{notebook}"):
        two()


def test_splits_gated_at_different_thresholds_are_not_one_row(two):
    rewrite("two", "02_gated", TASKS[1], config={"threshold": 0.5})
    with pytest.raises(StageError, match="differ in their threshold"):
        two()


# ------------------------------------------------------------------ origin
def test_a_figure_names_the_commit_that_recorded_the_run_not_the_one_that_draws(point):
    rewrite("r", "02_collect", TASKS[0], environment={"commit": "recorded"})
    params = FiguresParams(run="r", arms=ARMS, threshold_from="")
    origin = outputs.open_album(params, outputs.FIGURES).provenance
    assert (origin["run"], origin["commit"]) == ("r", "recorded")
    assert len(origin["config_sha256"]) == 64


def test_reported_figures_name_the_numbers_they_are_made_of(point, tmp_path, monkeypatch):
    params = FiguresParams(run="paper", source="reported")
    origin = outputs.open_album(params, outputs.FIGURES).provenance
    assert set(origin) == {"run", "stage", "config_sha256", "paper_sha256"}
    monkeypatch.setenv("SPECEYES_HOME", str(tmp_path))
    (tmp_path / "data" / "paper").mkdir(parents=True)
    (tmp_path / "data" / "paper" / "table1.csv").write_text("other")
    assert outputs.open_album(params, outputs.FIGURES).provenance["paper_sha256"] != origin["paper_sha256"]
