"""One step of the recipe, and runs of a few of them, with the committed agent."""

from __future__ import annotations

import fcntl
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from speceyes_lib.errors import StageError
from speceyes_lib.formats import read_training
from speceyes_lib.models.base import GenerationRequest
from speceyes_lib.models.transformers import TransformersBackend
from speceyes_lib.training import grpo
from speceyes_lib.training.grpo import Learner, Settings, group_advantages, token_losses

AGENT = Path(__file__).parents[2] / "data" / "demo" / "models" / "agent"
SMALL = Settings(steps=2, prompts=2, group_size=2, save_every=1, warm_up=1)


@pytest.fixture
def learner():
    return Learner(TransformersBackend(AGENT, "agent", dtype="float32"), SMALL)


SCORES = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(2, 8)),
    elements=st.sampled_from([-0.2, 0.0, 0.8, 2.0]),
)


@settings(deadline=None)
@given(SCORES)
def test_advantages_compare_a_score_with_its_group(scores):
    advantages = group_advantages(scores)
    assert advantages.mean(axis=1) == pytest.approx(0, abs=1e-9)
    flat = scores.std(axis=1) < 1e-9
    assert (np.abs(advantages[flat]) < 1e-3).all()
    assert advantages[~flat].std(axis=1, ddof=1) == pytest.approx(1, abs=1e-4)
    assert group_advantages(scores, divide_by_std=False) == pytest.approx(
        scores - scores.mean(axis=1, keepdims=True)
    )


def test_the_largest_advantage_of_a_group_of_eight_is_verls():
    assert group_advantages(np.array([[1.0, *[0.0] * 7]])).max() == pytest.approx(2.475, abs=1e-3)
    assert group_advantages(np.array([[0.8], [0.0]])).tolist() == [[0.8], [0.0]]


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.0, 1.0, -1.0), (1.0, -1.0, 1.0),  # on-policy: minus the advantage
        (1.5, 1.0, -1.2), (0.5, 1.0, -0.5),  # what rises is clipped, what falls is not
        (0.5, -1.0, 0.8), (1.5, -1.0, 1.5),
        (9.0, -1.0, 3.0),  # the bound for negative advantages
    ],
)  # fmt: skip
def test_the_loss_of_a_token_is_clipped_as_in_verl(ratio, advantage, loss):
    logprob = torch.log(torch.tensor([ratio]))
    assert token_losses(logprob, torch.zeros(1), torch.tensor([advantage]), SMALL).item() == pytest.approx(
        loss
    )


def test_evidence_and_sampling_exclude_each_other():
    with pytest.raises(ValueError, match="greedy"):
        GenerationRequest("x", [], 1, evidence_k=2, temperature=1.0)


def test_tokens_are_those_that_were_sampled_and_a_step_makes_the_better_ones_likelier(learner):
    torch.manual_seed(3)
    rollouts = list(grpo.rollouts_of(learner.backend, replace(SMALL, group_size=1), step=1))
    grpo.play(learner.backend, rollouts, 1.0)
    for rollout in rollouts:
        (sequence,) = rollout.sequences  # the template repeats the turns token by token
        turns = rollout.path.turns
        written = sequence.row.ids[sequence.written]
        text = learner.backend.decode(written.tolist())
        assert [turn.text for turn in turns] == [turn.text for turn in turns if turn.text in text]
        assert sequence.written.sum() >= sum(turn.n_tokens for turn in turns)
        assert "<tool_response>" not in text
    sequences = [rollout.sequences[0] for rollout in rollouts]

    def likelihoods() -> list[float]:
        with torch.no_grad():
            return [float(learner.logprobs([s]).sum()) for s in sequences]

    before, vision = likelihoods(), learner.model.model.visual.state_dict()
    vision = {name: value.clone() for name, value in vision.items()}
    metrics = learner.update(sequences, [1.0, -1.0], step=1)
    after = likelihoods()
    assert after[0] > before[0]
    assert after[1] < before[1]
    assert metrics["actor/pg_clipfrac"] == 0.0
    assert metrics["actor/ppo_kl"] == pytest.approx(0, abs=1e-6)
    assert all(
        torch.equal(value, learner.model.model.visual.state_dict()[name]) for name, value in vision.items()
    )


def test_the_start_is_at_no_distance_and_a_second_pass_is_off_policy(learner):
    other = Learner(
        learner.backend, replace(SMALL, kl_coef=0.1, updates=2, learning_rate=1e-3, loss="sequence_mean")
    )
    rollouts = list(grpo.rollouts_of(other.backend, SMALL, step=1))
    grpo.play(other.backend, rollouts, 1.0)
    sequences = [s for rollout in rollouts for s in rollout.sequences]
    metrics = other.update(sequences, [1.0, -1.0, 1.0, -1.0], step=1)
    assert metrics["actor/kl_loss"] > 0  # of the second pass
    assert metrics["actor/ppo_kl"] != 0


def metrics_of(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line["data"].items() if not k.startswith("timing")} for line in lines]


def test_a_run_is_read_as_verls_and_resumes_to_the_same_numbers(tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    seen = []
    assert grpo.train(AGENT, whole, SMALL, lambda *args: seen.append(args)) == whole / "checkpoints/2"
    assert [args[:2] for args in seen] == [(1, 2), (2, 2)]
    log = read_training(whole)
    assert set(log.metrics["step"]) == {1, 2}
    assert not log.problems
    assert len(log.rollouts) == 8
    scores = log.rollouts.groupby("step")["score"].mean().tolist()
    assert scores == pytest.approx([m["critic/score/mean"] for m in metrics_of(whole)])
    assert log.rollouts.groupby("step")["group"].nunique().tolist() == [2, 2]

    shutil.copytree(whole, resumed)  # as a kill within step 2 would leave it
    shutil.rmtree(resumed / "checkpoints/2")
    (resumed / "checkpoints/2.partial").mkdir()
    with (resumed / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "da')
    assert grpo.train(AGENT, resumed, SMALL) == resumed / "checkpoints/2"
    assert metrics_of(resumed) == metrics_of(whole)
    first, second = (folder / "checkpoints/2/model.safetensors" for folder in (whole, resumed))
    assert first.read_bytes() == second.read_bytes()
    longer = grpo.train(AGENT, resumed, replace(SMALL, steps=3))
    assert (longer.name, len(metrics_of(resumed))) == ("3", 3)
    assert not (resumed / "checkpoints/1/optimizer.safetensors").exists()
    assert (resumed / "checkpoints/1/model.safetensors").is_file()
    with pytest.raises(StageError, match=r"other settings \(seed\)"):
        grpo.train(AGENT, resumed, replace(SMALL, seed=1))


def test_two_processes_do_not_train_one_run(tmp_path):
    with (tmp_path / "run.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StageError, match="another process trains here"):
            grpo.train(AGENT, tmp_path, SMALL)
