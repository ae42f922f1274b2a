"""The gate of a run as one file: what it holds, how large it is, what it names as absent."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from explore_run import K_STORED

from speceyes_lib.errors import StageError, UserError
from speceyes_lib.explore import gate_page
from speceyes_lib.explore.gating import Gating
from speceyes_lib.explore.state import GateView
from speceyes_lib.formats import import_table
from speceyes_lib.replay.replay_data import ABSENT, NotRecorded
from speceyes_lib.runs import recorded_run
from speceyes_lib.workflow.cli import main

VIEW = GateView(threshold=0.9, k=K_STORED)
THREE = pd.DataFrame({"id": ["a", "b", "c"], "draft_right": [1, 0, 1], "confidence": [0.9, 0.2, 0.8]})


def data_of(path: Path) -> dict:
    packed = re.search(r'id="data">([^<]*)<', path.read_text("utf-8"))[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


@pytest.fixture
def small(stored_run, monkeypatch) -> Gating:
    monkeypatch.setenv("SPECEYES_RUNS", str(stored_run))
    return Gating(recorded_run.open("small", strict=False))


@pytest.fixture(scope="module")
def page(stored_run, tmp_path_factory) -> Path:
    """The file of the run `small`."""
    path = tmp_path_factory.mktemp("page") / "gate.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(stored_run))
        gate_page.write_gate_page(Gating(recorded_run.open("small", strict=False)), VIEW, path)
    return path


@pytest.fixture
def runs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    return tmp_path


def test_the_file_holds_the_arrays_of_replay_and_every_sample(small, page):
    data, part = data_of(page), small.part("all", "")
    assert data["ids"] == part.ids.tolist()
    for name in part.score_names:
        expected = part.score(name, K_STORED).tolist()
        assert data["scores"][name] == [None if value != value else value for value in expected]
    assert data["draft"] == part.draft.tolist()
    assert all(data["details"])
    decided = small.decided(VIEW)
    taken = (decided["decision"] == "accepted").to_numpy()
    seconds = np.array(data["beforeSeconds"]) + np.where(taken, 0.0, np.array(data["agentSeconds"]))
    assert seconds == pytest.approx(decided["wall_s"].to_numpy())
    assert data["aloneSeconds"] == pytest.approx(decided["baseline_wall_s"].tolist())


def test_the_policy_names_the_script_and_the_style_by_their_hashes(page):
    html = page.read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    for element, rule in (("script", "script-src"), ("style", "style-src")):
        inline = re.search(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in policy


def test_a_file_that_would_grow_too_large_keeps_what_readers_look_for_and_names_the_rest(
    small, tmp_path, monkeypatch
):
    monkeypatch.setattr(gate_page, "LARGEST_BYTES", 60_000)
    *_, note, _ = gate_page.write_gate_page(small, VIEW, tmp_path / "gate.html")
    data, decided = data_of(tmp_path / "gate.html"), small.decided(VIEW)
    left_out = [id_ for id_, details in zip(data["ids"], data["details"], strict=True) if details is None]
    assert 0 < len(left_out) < len(data["ids"])
    assert note.startswith(f"{len(left_out)} of {len(data['ids'])} samples")
    assert (tmp_path / "gate.html").stat().st_size < 60_000 + 80_000  # beside its script and style
    accepted_wrong = decided[(decided["decision"] == "accepted") & ~decided["draft_right"].fillna(False)]
    assert not set(left_out) & set(accepted_wrong["id"])


def test_equal_input_gives_an_equal_file(runs):
    import_table(THREE, "own")
    for name in ("a", "b"):
        gate_page.export_gate_page("own", runs / name, report=lambda _: None)
    assert (runs / "a").read_bytes() == (runs / "b").read_bytes()


def test_three_columns_make_a_page_that_names_what_it_lacks(runs):
    import_table(THREE, "own")
    notes: list[str] = []
    gate_page.export_gate_page("own", runs / "gate.html", report=notes.append)
    data = data_of(runs / "gate.html")
    assert data["start"]["score"] == "confidence"
    assert data["start"]["threshold"] == 0.98
    assert data["agent"] == [ABSENT] * 3
    assert data["agentSeconds"] == [None] * 3
    assert data["pictures"] == []
    assert [note.split(":")[0] for note in notes[:-1]] == [
        "The agent's answer is not recorded for any sample",
        "Nothing was timed",
        "3 of 3 samples have no picture",
    ]


def test_a_score_on_another_scale_opens_at_its_median(runs):
    import_table(THREE.assign(confidence=[-3.0, 12.5, 40.0]), "own")
    gate_page.export_gate_page("own", runs / "gate.html", report=lambda _: None)
    assert data_of(runs / "gate.html")["start"]["threshold"] == 12.5


def test_the_command_writes_the_file_and_reports_mistakes_in_a_line(runs, capsys):
    import_table(THREE, "own")
    path = runs / "gate.html"
    assert main(["export-page", "own", "--out", str(path), "--thresholds", "0.5", "0.85"]) == 0
    start = data_of(path)["start"]
    assert (start["threshold"], start["other"]) == (0.5, 0.85)
    assert main(["export-page", "own", "--out", str(runs / "none" / "gate.html")]) == 2
    assert main(["export-page", "own", "--out", str(path), "--thresholds", "0.1", "0.2", "0.3"]) == 2
    assert main(["export-page", "nothing", "--out", str(path)]) == 2
    faults = capsys.readouterr().err.splitlines()
    assert len(faults) == 3
    assert "none/gate.html" in faults[0]
    assert "3 thresholds" in faults[1]
    assert "nothing" in faults[2]


def test_a_setting_that_the_run_cannot_have_is_refused(small, tmp_path):
    for view in (GateView(k=4096), GateView(k=K_STORED, router="small"), GateView(score="none", k=K_STORED)):
        with pytest.raises(NotRecorded):
            gate_page.write_gate_page(small, view, tmp_path / "gate.html")
    with pytest.raises((StageError, UserError)):
        gate_page.export_gate_page("absent", tmp_path / "gate.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_threshold_that_is_no_finite_number_is_refused(value, tmp_path):
    with pytest.raises(UserError, match=f"threshold {value}"):
        gate_page.export_gate_page("absent", tmp_path / "gate.html", [0.5, value])
