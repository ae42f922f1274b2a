"""The funnel really run beside replay, with the embedded models: small here, in full by `make fidelity`."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speceyes_lib.analysis import fidelity
from speceyes_lib.errors import ConfigError, UserError
from speceyes_lib.params import FidelityParams
from speceyes_lib.replay import replay_data, settings
from speceyes_lib.report.plots import fidelity as fidelity_plot
from speceyes_lib.runs import recorded_run
from speceyes_lib.runs.reading import read_manifest

SETTINGS = [
    "min > 0.9986",
    "min > 0.97, K 32",
    "mean > 0.99, K 96, batch 2",
    "log > 0.95, router none",
    "bottom20 > 0.99, slope 0.4, router none, batch 3",
    "min > 0.98, router small, batch 1",
    "min > 0.995, agents 3",
]


@pytest.fixture(scope="module")
def params(tmp_path_factory, benchmark_root):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECEYES_RUNS", str(tmp_path_factory.mktemp("runs")))
        params = FidelityParams(
            tasks=["hr/hr_bench_4k", "pope/random"],
            data_root=str(benchmark_root),
            limit=4,
            settings=SETTINGS,
            batch_size=4,
            agent_batch_size_batched=4,
        )
        fidelity.run_fidelity(params)
        yield params


@pytest.fixture(scope="module")
def data(params):
    return replay_data.load(recorded_run.open(params.run, tasks=params.tasks))


def test_replayed_decisions_answers_and_verdicts_are_those_of_the_real_runs(params, data):
    table, differing = fidelity.compare_with_replay(params, data)
    assert table["setting"].tolist() == [str(settings.Setting.parse(text)) for text in SETTINGS]
    assert (table["n"] == 8).all()
    assert not table[["decisions_differ", "answers_differ", "verdicts_differ"]].any(axis=None)
    assert len(differing) == 0
    assert (table["accuracy_pct_predicted"] == table["accuracy_pct_measured"]).all()
    assert (table["accepted_predicted"] == table["accepted_measured"]).all()
    assert (table["confidence_off"].dropna() < 1e-5).all()
    assert 0 < table["accepted_measured"].sum() < table["n"].sum()
    assert (table[["wall_s_predicted", "wall_s_measured", "speedup_measured"]] > 0).all(axis=None)


def test_a_disagreement_is_found_and_named(params, data):
    """With another instrumented pass, as a wrong replay would be, every kind of difference is counted."""
    opposite = {"draft": 1 - np.clip(data.draft, 0, 1), "agent": 1 - np.clip(data.agent, 0, 1)}
    turned = replay_data.ReplayData(**{**vars_of(data), **opposite})
    top = data.top_logprobs.copy()
    top[:, 0] = top[:, 1]  # the best token ties with the second, so that no token is sure
    turned = replay_data.ReplayData(**{**vars_of(turned), "top_logprobs": top})
    table, differing = fidelity.compare_with_replay(params, turned)
    assert table["decisions_differ"].sum() > 0
    assert table["verdicts_differ"].sum() > 0
    assert len(differing) >= table["decisions_differ"].sum()
    assert set(differing["setting"]) <= set(table["setting"])


def vars_of(data: replay_data.ReplayData) -> dict:
    return {name: getattr(data, name) for name in data.__dataclass_fields__} | {"pooled": {}}


def test_the_comparison_is_a_finished_stage_that_names_its_runs(params, data):
    folder = fidelity.write_fidelity(params, *fidelity.compare_with_replay(params, data), [])
    manifest = read_manifest(params.run, fidelity.STAGE)
    runs = {name.split("/")[0] for name in manifest.inputs}
    assert runs == {
        params.run,
        f"{params.run}_agents3",
        *(f"{params.run}_setting{i}" for i in range(1, len(SETTINGS) + 1)),
    }
    assert len(pd.read_csv(folder / "settings.csv")) == len(SETTINGS)


def test_what_is_finished_is_not_run_again(params):
    seen = []
    fidelity.run_fidelity(params, lambda done, total, text="": seen.append((done, total, text)))
    assert all(done == total for done, total, _ in seen)
    assert len({text for *_, text in seen}) == len(seen)  # every leg has its own name


def made_up(n: int = 4) -> pd.DataFrame:
    measured = np.linspace(1.2, 2.8, n)
    return pd.DataFrame(
        {
            "setting": [str(settings.Setting(threshold=0.9 + i / 100)) for i in range(n)],
            "n": 520,
            "speedup_measured": measured,
            "speedup_predicted": measured * 1.05,
            "accuracy_pct_measured": np.linspace(95, 96, n),
            "accuracy_pct_predicted": np.linspace(95, 96, n),
        }
    )


def test_the_figure_shows_both_numbers_of_every_setting():
    table = made_up()
    left, right = fidelity_plot.replay_fidelity(table).axes
    drawn = {line.get_label(): line.get_xdata() for line in left.lines}
    assert np.array_equal(drawn["measured"], table["speedup_measured"])
    assert np.array_equal(drawn["replayed"], table["speedup_predicted"])
    assert [label.get_text() for label in left.get_yticklabels()] == table["setting"].tolist()
    assert "n=520" in right.get_xlabel()
    widths = [bar.get_width() for bar in left.patches]
    assert widths == pytest.approx(0.2 * table["speedup_measured"])


# ---------------------------------------------------------------------------------------------- settings as text
@given(
    st.builds(
        settings.Setting,
        score=st.sampled_from(["min", "mean", "bottom20", "log", "margin_of-top"]),
        k=st.integers(2, 500),
        slope=st.floats(0.01, 10),
        threshold=st.floats(0, 1),
        router=st.sampled_from(["large", "small", "none"]),
        batch_size=st.integers(1, 999),
        agent_batch_size=st.integers(1, 999),
    )
)
def test_a_setting_reads_back_from_its_text(setting):
    assert settings.Setting.parse(str(setting)) == setting


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("min", "min"),
        ("min > much", "min > much"),
        ("min > 0.9 > 1", "min > 0.9 > 1"),
        ("min > 0.9, L 3", "L 3"),
        ("min > 0.9, K three", "K three"),
        ("min > 0.9, batch", "batch"),
        ("min > 0.9,", ""),
        ("", ""),
    ],
)
def test_a_text_that_is_no_setting_is_an_error(text, part):
    with pytest.raises(UserError, match=re.escape(f"setting {text!r}: cannot read {part!r}")):
        settings.Setting.parse(text)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"settings": ["min > 0.9, K 500"]}, r"settings: 'min > 0\.9, K 500'.*k = 500 is more than k_store"),
        ({"k_store": 6}, "k = 64 is more than k_store = 6"),
    ],
)
def test_a_setting_that_cannot_be_run_is_refused_before_anything_runs(given, named, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECEYES_RUNS", str(tmp_path))
    with pytest.raises(ConfigError, match=named):
        fidelity.run_fidelity(FidelityParams(**given))
    assert list(tmp_path.iterdir()) == []
