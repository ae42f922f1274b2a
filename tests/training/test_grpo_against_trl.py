"""The same groups under TRL's trainer, where it is installed: equal advantages, and an equal loss after an update."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from speceyes_lib.agents import prompt_sets
from speceyes_lib.analysis.training_curves import EPSILON
from speceyes_lib.training.grpo import Settings, group_advantages, token_losses
from speceyes_lib.training.modeling import build_tokenizer

pytest.importorskip("trl")
pytest.importorskip("datasets")

from datasets import Dataset
from datasets.table import InMemoryTable
from transformers import Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

TRL_EPSILON = 1e-4  # verl adds 1e-6 to the standard deviation
SIZE = 4  # trajectories of a group


def paid(prompts, completions, completion_ids, **_) -> list[float]:
    """A reward that follows from the tokens alone; groups of one value happen."""
    return [0.4 * (sum(ids) % 3) for ids in completion_ids]


class Recording(GRPOTrainer):
    """Keeps what each loss was computed from."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
        mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
        n = inputs["completion_ids"].shape[1]
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask).logits[:, -n - 1 : -1].float()
        logprobs = logits.log_softmax(-1).gather(2, inputs["completion_ids"][..., None])[..., 0]
        self.kept = [*getattr(self, "kept", []), (inputs, logprobs, loss.item())]
        return loss


@pytest.mark.parametrize("by_std", [True, False])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_advantages_and_losses_agree(tmp_path, by_std, loss_type):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(prompt_sets.load("demo"))
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    config = GRPOConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=2 * SIZE, num_generations=SIZE,
        num_iterations=2, max_completion_length=8, learning_rate=0.05, optim="sgd", lr_scheduler_type="constant",
        beta=0.0, delta=None, loss_type=loss_type, scale_rewards="group" if by_std else "none",
        max_grad_norm=0.0, use_cpu=True, bf16=False, report_to=[], save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    table = InMemoryTable.from_pydict({"prompt": ["star", "red square"]})
    data = Dataset(
        table, fingerprint="two prompts"
    )  # without one, datasets pickles what some versions cannot
    trainer = Recording(model, reward_funcs=paid, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    assert len(trainer.kept) == 2
    ratios = []
    for inputs, logprobs, loss in trainer.kept:
        written = inputs["completion_mask"].bool()
        ids = [row[m].tolist() for row, m in zip(inputs["completion_ids"], written, strict=True)]
        rewards = np.array(paid(None, None, ids))
        _, group = np.unique(inputs["prompt_ids"].numpy(), axis=0, return_inverse=True)
        order = np.argsort(group, kind="stable")
        scores = rewards[order].reshape(-1, SIZE)
        ours = group_advantages(scores, by_std)
        if by_std:
            std = scores.std(axis=1, ddof=1, keepdims=True)
            ours = ours * (std + EPSILON) / (std + TRL_EPSILON)
        theirs = inputs["advantages"].numpy()[order].reshape(-1, SIZE)
        assert theirs == pytest.approx(ours, abs=1e-5)

        old = inputs.get("old_per_token_logps")
        old = logprobs if old is None else old
        ratios.append(torch.exp(logprobs - old)[written])
        each = inputs["advantages"][:, None].expand_as(logprobs)
        losses = torch.zeros_like(logprobs)
        settings = Settings(dual_clip=1e9)  # TRL has no such bound
        losses[written] = token_losses(logprobs[written], old[written], each[written], settings)
        counts = written.sum(1)
        mean = losses.sum() / counts.sum() if loss_type == "dapo" else (losses.sum(1) / counts).mean()
        assert loss == pytest.approx(mean.item(), abs=1e-5)
    assert ratios[0] == pytest.approx(1, abs=1e-6)
    assert (ratios[1] - 1).abs().max() > 1e-3
