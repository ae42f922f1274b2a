"""Tokenizer, processors and the two tiny models, built from scratch without any download.

The architectures are the real ones (Qwen3-VL for the draft, Qwen2.5-VL for the agent) at a few million
parameters, with the real processor classes, so that the same code serves the large models and these.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..agents.prompt_sets import PromptSet
from ..agents.prompt_sets import load as load_prompts
from ..demo import scenes
from ..errors import UserError
from . import dialogue

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin, Qwen2Tokenizer

Which = Literal["draft", "agent"]
END_OF_TURN, PAD = "<|im_end|>", "<|endoftext|>"
IMAGE = "<|image_pad|>"
UNUSED = "<|vision_pad|>"  # exists in the vocabulary of the family, never in a dialogue
SPECIAL_TOKENS = (
    "<|im_start|>",
    "<|vision_start|>",
    "<|vision_end|>",
    UNUSED,
    IMAGE,
    "<|video_pad|>",
)
MARKUP_TOKENS = tuple(
    f"<{slash}{name}>" for name in ("tool_call", "tool_response", "think", "answer") for slash in ("", "/")
)
WORDS = tuple(dict.fromkeys((*scenes.SHAPES, *scenes.COLORS, *scenes.PLACES, *scenes.YES_NO)))
# Areas of a view in px. The lower one is far below, the upper one between 6 x 6 and 6 x 7 tokens: so a square from
# 88 px up becomes 96 x 96 px, also one that rounding made 1 px longer, and what smart_resize returns is final.
PIXELS = {"shortest_edge": 5120, "longest_edge": 10500}
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{% if part.type == 'image' or 'image' in part or 'image_url' in part %}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' or 'video' in part %}<|vision_start|><|video_pad|><|vision_end|>
{%- elif 'text' in part %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor -%}
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


# ------------------------------------------------------------------------------------------- tokenizer
def _corpus(prompts: PromptSet, n_scenes: int = 3000) -> Iterator[str]:
    """The text for learning the vocabulary: both sides of seeded dialogues, without the markup."""
    rng = random.Random(7)
    for _ in range(n_scenes):
        scene = scenes.sample_scene(rng)
        question = scenes.ask(scene, rng, rng.choice([k for k in scenes.KINDS if scenes.admits(scene, k)]))
        block = prompts.question_block(question.text, None if question.kind == "exist" else question.options)
        texts = [
            prompts.draft_system,
            prompts.agent_system,
            prompts.router_text(block),
            dialogue.zoom_turn(question, scenes.teacher_box(scene)),
            dialogue.answer_turn(question),
            question.reply,
            question.short + "\n",
            "user\n",
            "assistant\n",
            "system\n",
            *WORDS,
            *(f" {word}" for word in WORDS),
        ]
        for text in texts:
            for token in MARKUP_TOKENS:
                text = text.replace(token, "\0")
            yield from filter(None, text.split("\0"))


def build_tokenizer(prompts: PromptSet | None = None) -> Qwen2Tokenizer:
    """Byte-level BPE with the family's pre-tokenizer and special tokens; about 500 entries, always the same.

    Every answer word is one token, with and without a space before it. Raises UserError when other prompt
    texts would break that.
    """
    import json

    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    bpe.train_from_iterator(_corpus(prompts or load_prompts("demo")), trainer)
    learned = json.loads(bpe.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(pair) for pair in learned["merges"]],
        unk_token=None,
        eos_token=END_OF_TURN,
        pad_token=PAD,
        padding_side="left",
        model_max_length=2048,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL_TOKENS)})
    tokenizer.add_tokens(list(MARKUP_TOKENS))
    tokenizer.chat_template = CHAT_TEMPLATE
    for word in (*WORDS, *(f" {word}" for word in WORDS)):
        if len(tokenizer(word)["input_ids"]) != 1:
            raise UserError(
                f"the demo prompts leave {word!r} in several tokens; the texts must contain it more often"
            )
    return tokenizer


def build_processor(which: Which, tokenizer: Qwen2Tokenizer) -> ProcessorMixin:
    """The processor class of the real family; every square picture becomes 96 x 96 px = 36 visual tokens."""
    from transformers import (
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    patches = {"patch_size": 8, "merge_size": 2}
    pixels = {"size": dict(PIXELS), "temporal_patch_size": 2}
    if which == "draft":
        image_processor = Qwen2VLImageProcessor(
            image_mean=[0.5] * 3, image_std=[0.5] * 3, **patches, **pixels
        )
        video_processor = Qwen3VLVideoProcessor(**patches)
        return Qwen3VLProcessor(image_processor, tokenizer, video_processor, chat_template=CHAT_TEMPLATE)
    image_processor, video_processor = (
        Qwen2VLImageProcessor(**patches, **pixels),
        Qwen2VLVideoProcessor(**patches),
    )
    return Qwen2_5_VLProcessor(image_processor, tokenizer, video_processor, chat_template=CHAT_TEMPLATE)


# ---------------------------------------------------------------------------------------------- models
def build_model(which: Which, tokenizer: Qwen2Tokenizer) -> PreTrainedModel:
    """A freshly initialised draft (1.6 M parameters) or agent (2.9 M), float32, from torch's global generator."""
    from transformers import GenerationConfig

    model = _build_draft(tokenizer) if which == "draft" else _build_agent(tokenizer)
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    return model


def _build_draft(tokenizer: Qwen2Tokenizer, hidden: int = 128, vision_hidden: int = 96) -> PreTrainedModel:
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(
        text_config={
            **_text_shape(tokenizer, hidden),
            "head_dim": 32,
            "rope_parameters": _rope([6, 5, 5]) | {"mrope_interleaved": True},
        },
        vision_config={
            **_vision_shape(vision_hidden, hidden),
            "num_position_embeddings": (scenes.VIEW_PX // 8) ** 2,
            "deepstack_visual_indexes": [1],
        },
        **_token_ids(tokenizer),
    )
    model = Qwen3VLForConditionalGeneration(config)
    # deepstack adds vision features to early language layers; at zero it does not disturb what these layers
    # have learned on symbols before the vision tower means anything
    for merger in model.model.visual.deepstack_merger_list:
        torch.nn.init.zeros_(merger.linear_fc2.weight)
        torch.nn.init.zeros_(merger.linear_fc2.bias)
    return model


def _build_agent(tokenizer: Qwen2Tokenizer, hidden: int = 128, vision_hidden: int = 96) -> PreTrainedModel:
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = _vision_shape(vision_hidden, hidden)
    config = Qwen2_5_VLConfig(
        text_config={
            **_text_shape(tokenizer, hidden, layers=5),
            # Qwen2.5-VL hands contiguous bands of falling frequency to time, row, column. With the usual base of
            # 1e4 and even bands one column turns the phase by < .003 rad and left looks like right.
            "rope_parameters": _rope([1, 3, 12]),
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={**vision, "window_size": 128, "fullatt_block_indexes": list(range(vision["depth"]))},
        **_token_ids(tokenizer),
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    # this family has no query/key norm: from the default std of .02 attention starts flat and stays there
    for layer in model.model.language_model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            torch.nn.init.normal_(projection.weight, std=1.2 / hidden**0.5)
    return model


def _text_shape(tokenizer: Qwen2Tokenizer, hidden: int, layers: int = 4) -> dict:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 32,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _rope(sections: list[int]) -> dict:
    return {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": sections}


def _vision_shape(hidden: int, out_hidden: int) -> dict:
    return {
        "depth": 3,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_heads": hidden // 32,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "out_hidden_size": out_hidden,
        "rope_parameters": {"rope_type": "axial", "rope_theta": 10_000.0},
    }


def _token_ids(tokenizer: Qwen2Tokenizer) -> dict:
    names = {
        "image_token_id": IMAGE,
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {key: tokenizer.convert_tokens_to_ids(token) for key, token in names.items()} | {
        "tie_word_embeddings": True
    }


def load_pair(folder: str | Path) -> tuple[ProcessorMixin, PreTrainedModel]:
    """Processor and model (float32, evaluation mode) of a saved folder, through the Auto classes alone.

    Raises UserError when the folder holds no saved model.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no model here (config.json is missing); train one with `speceyes train`")
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    return AutoProcessor.from_pretrained(folder), model.eval()


# ------------------------------------------------------------------------------------- training speed
@contextmanager
def fast_vision() -> Iterator[None]:
    """Within the block, vision towers compute the same function faster when all images have one size.

    The stock code runs attention image by image and the patch embedding as a 3-d convolution, both slow for
    hundreds of tiny images on a CPU. For training only; undone on leaving.
    """
    import torch.nn.functional as F
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as qwen2
    from transformers.models.qwen3_vl import modeling_qwen3_vl as qwen3

    def attention(self, hidden_states, cu_seqlens, position_embeddings=None, **_):
        tokens, images = hidden_states.shape[0], len(cu_seqlens) - 1
        q, k, v = self.qkv(hidden_states).reshape(tokens, 3, self.num_heads, -1).permute(1, 0, 2, 3).unbind(0)
        q, k = qwen3.apply_rotary_pos_emb_vision(q, k, *position_embeddings)
        q, k, v = (t.reshape(images, tokens // images, self.num_heads, -1).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v.to(q.dtype))
        return self.proj(mixed.transpose(1, 2).reshape(tokens, -1))

    def patch_embedding(self, hidden_states):
        weight = self.proj.weight.flatten(1)
        return F.linear(hidden_states.view(-1, weight.shape[1]), weight, self.proj.bias)

    patches = [
        (qwen2.Qwen2_5_VLVisionAttention, attention),
        (qwen3.Qwen3VLVisionAttention, attention),
        (qwen2.Qwen2_5_VisionPatchEmbed, patch_embedding),
        (qwen3.Qwen3VLVisionPatchEmbed, patch_embedding),
    ]
    originals = [cls.forward for cls, _ in patches]
    try:
        for cls, forward in patches:
            cls.forward = forward
        yield
    finally:
        for (cls, _), forward in zip(patches, originals, strict=True):
            cls.forward = forward
