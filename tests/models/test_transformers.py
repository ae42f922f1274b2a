"""The transformers backend on the embedded models: same answers in any batch, evidence of the raw logits."""

from __future__ import annotations

import base64
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from speceyes_lib.agents import prompt_sets
from speceyes_lib.errors import ConfigError, UserError
from speceyes_lib.gating.separability import PAPER_SCORES, score_answer
from speceyes_lib.models import transformers as transformers_backend
from speceyes_lib.models.base import Backend, GenerationRequest
from speceyes_lib.models.decoding import LayerRecorder, spaced_layers
from speceyes_lib.models.transformers import SUPPORTED, TransformersBackend, check_architecture, normalise
from speceyes_lib.tasks.images import ImageSpec, resized_view, view_size
from tests.conftest import MODELS

PROMPTS = prompt_sets.load("demo")


def requests_for(samples, backend, **settings) -> list[GenerationRequest]:
    """The first request of the backend's role about each sample."""
    messages = PROMPTS.draft_messages if backend.role == "draft" else PROMPTS.agent_messages
    return [
        GenerationRequest(
            s.id,
            messages(
                PROMPTS.question_block(s.question, s.options),
                resized_view(s.image.open(), backend.image_spec),
            ),
            **settings,
        )
        for s in samples
    ]


def like(request, **changes) -> list[GenerationRequest]:
    return [replace(request, **changes)]


def plain_inputs(backend, requests) -> dict:
    """A batch from the model's processor, text and pictures together."""
    texts, images = [], []
    for request in requests:
        messages, pictures = normalise(request.messages, backend.image_spec)
        texts.append(
            backend.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )
        images += pictures
    batch = backend.processor(text=texts, images=images, padding=True, return_tensors="pt", do_resize=False)
    return dict(batch)


@pytest.fixture(scope="module")
def requests(tiny_draft, scene_samples) -> list[GenerationRequest]:
    """Questions of all kinds and lengths."""
    return requests_for(scene_samples[::2], tiny_draft, max_new_tokens=20, evidence_k=128)


@pytest.fixture(scope="module")
def batched(tiny_draft, requests):
    return tiny_draft.generate(requests)


def test_it_is_a_backend(tiny_draft):
    assert isinstance(tiny_draft, Backend)


def test_batched_and_single_answers_are_identical_and_scores_agree_to_1e_4(tiny_draft, requests, batched):
    assert len({len(str(r.messages)) for r in requests}) > 1  # of different lengths, so that padding matters
    for together, request in zip(batched, requests, strict=True):
        (alone,) = tiny_draft.generate([request])
        assert together.error is None
        assert (together.text, together.token_ids) == (alone.text, alone.token_ids)
        for mode in PAPER_SCORES:
            a, b = (score_answer(g.evidence.top_logprobs, mode) for g in (together, alone))
            assert a == pytest.approx(b, abs=1e-4)


def test_requests_that_are_given_up_end_early_and_change_no_other(tiny_draft, requests, batched):
    first, second = requests[:2]
    ended, answered = tiny_draft.generate([first, second], lambda: {first.id})
    assert (len(ended.token_ids), ended.finish_reason) == (1, "length")
    assert (answered.text, answered.finish_reason) == (batched[1].text, "stop")


def test_an_agents_turns_are_the_same_in_a_batch_of_different_lengths(tiny_agent, scene_samples):
    settings = {"max_new_tokens": 120, "stop": ("</tool_call>", "</answer>")}
    requests = requests_for(scene_samples[::9], tiny_agent, **settings)
    # a second turn, with a second picture, beside first turns
    first = tiny_agent.generate(requests[:1])[0]
    crop = resized_view(scene_samples[0].image.open(), tiny_agent.image_spec)
    second = [
        *requests[0].messages,
        {"role": "assistant", "content": first.text},
        PROMPTS.tool_response(crop),
    ]
    requests += like(requests[0], id="second", messages=second)
    for together, request in zip(tiny_agent.generate(requests), requests, strict=True):
        (alone,) = tiny_agent.generate([request])
        assert together.error is None
        assert (together.text, together.finish_reason) == (alone.text, alone.finish_reason)


@pytest.mark.parametrize("role", ["draft", "agent"])
@pytest.mark.parametrize("count", [1, 5])
def test_tokens_are_those_of_greedy_decoding_by_transformers(
    role, count, tiny_draft, tiny_agent, scene_samples
):
    import torch

    backend = {"draft": tiny_draft, "agent": tiny_agent}[role]
    requests = requests_for(scene_samples[3::7][:count], backend, max_new_tokens=70, evidence_k=16)
    with torch.inference_mode():
        inputs = plain_inputs(backend, requests)
        sequences = backend.model.generate(**inputs, max_new_tokens=70, do_sample=False)
    for expected, generation in zip(
        sequences[:, inputs["input_ids"].shape[1] :].tolist(), backend.generate(requests), strict=True
    ):
        ends = [i for i, token in enumerate(expected) if token in backend.end_ids]
        n = min(ends, default=len(expected))
        assert (list(generation.token_ids), generation.finish_reason) == (
            expected[:n],
            "stop" if ends else "length",
        )
        assert len(generation.evidence.top_logprobs) == n


def test_the_evidence_is_that_of_the_raw_logits_for_every_token_before_the_end(tiny_draft, requests, batched):
    import torch

    inputs = plain_inputs(tiny_draft, requests[:6])
    with torch.inference_mode():
        plain = tiny_draft.model.generate(
            **inputs, max_new_tokens=20, output_logits=True, return_dict_in_generate=True
        )
    expected = torch.stack(plain.logits, 1).double().log_softmax(-1).sort(-1, descending=True).values
    for i, generation in enumerate(tiny_draft.generate(requests[:6])):
        evidence = generation.evidence
        n = len(generation.token_ids)
        assert n > 0
        assert evidence.top_logprobs.shape == (n, 128)
        np.testing.assert_allclose(evidence.top_logprobs, expected[i, :n, :128], atol=1e-5)
        assert evidence.token_ids.tolist() == list(generation.token_ids) == evidence.top_ids[:, 0].tolist()
        np.testing.assert_array_equal(evidence.chosen_logprobs, evidence.top_logprobs[:, 0])
        assert not set(generation.token_ids) & tiny_draft.end_ids
        assert "".join(evidence.token_texts) == generation.text


def test_the_whole_vocabulary_may_be_kept_and_sums_to_one(tiny_draft, requests):
    (whole,) = tiny_draft.generate(like(requests[0], evidence_k=tiny_draft.vocab_size))
    np.testing.assert_allclose(np.exp(whole.evidence.top_logprobs.astype(float)).sum(1), 1, atol=1e-5)


def test_more_alternatives_than_the_vocabulary_has_are_refused(tiny_draft, requests):
    with pytest.raises(UserError, match=rf"k_store: 9999 .*vocabulary of {tiny_draft.vocab_size}"):
        tiny_draft.generate(like(requests[0], evidence_k=9999))


def test_no_evidence_is_kept_without_a_request_for_it(tiny_draft, requests):
    assert tiny_draft.generate(like(requests[0], evidence_k=0))[0].evidence is None


def test_an_answer_that_ends_says_stop_and_one_cut_off_says_length(tiny_agent, scene_samples):
    (request,) = requests_for(scene_samples[:1], tiny_agent, max_new_tokens=3)
    (cut,) = tiny_agent.generate(like(request, prefill="<think>"))
    assert (cut.finish_reason, len(cut.token_ids)) == ("length", 3)
    (whole,) = tiny_agent.generate(like(request, max_new_tokens=200))
    assert whole.finish_reason == "stop"


def test_a_stop_string_of_any_tokens_ends_the_turn_and_stays_in_the_text(tiny_agent, scene_samples):
    (request,) = requests_for(scene_samples[:1], tiny_agent, max_new_tokens=200)
    (whole,) = tiny_agent.generate([request])
    for stop in (whole.text[8:13], "</think>"):  # several tokens or parts of them; one token
        (stopped,) = tiny_agent.generate(like(request, stop=(stop,)))
        assert stopped.text == whole.text[: whole.text.index(stop) + len(stop)]
        assert stopped.finish_reason == "stop"
        assert len(stopped.token_ids) < len(whole.token_ids)


def test_a_stop_string_in_the_prompt_or_the_prefill_stops_nothing(tiny_agent, scene_samples):
    (request,) = requests_for(scene_samples[:1], tiny_agent, max_new_tokens=200)
    (free,) = tiny_agent.generate(like(request, prefill="<think>"))
    (same,) = tiny_agent.generate(like(request, prefill="<think>", stop=("<think>",)))
    assert same.text == free.text
    assert len(same.text) > 5


def test_the_model_continues_the_prefill_without_repeating_it(tiny_agent, scene_samples):
    (request,) = requests_for(scene_samples[:1], tiny_agent, max_new_tokens=60)
    prefix = PROMPTS.forced_look_prefix
    (answered,) = tiny_agent.generate(like(request, prefill=prefix))
    assert prefix not in answered.text
    assert "</think>" in answered.text


def test_tags_are_text_and_control_tokens_are_not(tiny_agent):
    text = '<think>x</think>\n<tool_call>\n{"name": "y"}\n</tool_call><answer>red</answer>'
    ids = tiny_agent.tokenizer(text + "<|im_end|>")["input_ids"]
    assert tiny_agent.decode(ids) == text


def test_requests_with_other_settings_share_a_call_and_keep_their_order(tiny_draft, requests, batched):
    mixed = [
        *requests[:2],
        *like(requests[2], evidence_k=8),
        *like(requests[3], max_new_tokens=1),
        requests[4],
    ]
    answers = tiny_draft.generate(mixed)
    assert [a.id for a in answers] == [r.id for r in mixed]
    assert [a.text for a in answers[:3]] == [b.text for b in batched[:3]]
    assert answers[2].evidence.k == 8
    assert len(answers[3].token_ids) <= 1
    assert [a.batch_size for a in answers] == [3, 3, 1, 1, 3]


def test_a_request_that_cannot_be_processed_fails_alone(tiny_draft, requests, batched):
    broken = [{"role": "user", "content": [{"type": "text", "text": "no picture behind <|image_pad|>"}]}]
    answers = tiny_draft.generate([requests[0], *like(requests[1], messages=broken), requests[2]])
    assert [a.error is None for a in answers] == [True, False, True]
    assert [answers[0].text, answers[2].text] == [batched[0].text, batched[2].text]


def test_penalties_and_sampling_of_a_models_configuration_do_not_change_greedy_decoding(
    tmp_path, requests, batched
):
    folder = tmp_path / "draft"
    shutil.copytree(MODELS / "draft", folder)
    path = folder / "generation_config.json"
    config = json.loads(path.read_text()) | {"repetition_penalty": 5.0, "do_sample": True, "temperature": 3.0}
    path.write_text(json.dumps(config))
    bent = TransformersBackend(folder, dtype="float32", device="cpu").generate(requests)
    assert [g.text for g in bent] == [g.text for g in batched]
    np.testing.assert_allclose(bent[0].evidence.top_logprobs, batched[0].evidence.top_logprobs, atol=1e-5)


def test_no_picture_is_sampled_that_nobody_gave(tiny_draft, requests):
    def wish(_module, _inputs, logits):
        logits[..., tiny_draft.image_token_id] += 100
        return logits

    hook = tiny_draft.model.lm_head.register_forward_hook(wish)
    try:
        sampled = tiny_draft.generate(like(requests[0], temperature=1.0, evidence_k=0))
        greedy = tiny_draft.generate(like(requests[0], evidence_k=0))
    finally:
        hook.remove()
    assert set(greedy[0].token_ids) == {tiny_draft.image_token_id}  # the wish is heard
    assert sampled[0].token_ids
    assert tiny_draft.image_token_id not in sampled[0].token_ids


def test_an_image_budget_changes_what_the_model_sees():
    small = TransformersBackend(
        MODELS / "draft", dtype="float32", device="cpu", min_pixels=32 * 32, max_pixels=64 * 64
    )
    assert view_size(640, 640, small.image_spec) == (64, 64)
    picture = {"type": "image", "image": Image.new("RGB", (640, 640))}
    request = GenerationRequest("x", [{"role": "user", "content": [picture]}], 2)
    assert small.prepared_row(request).grids == [(1, 64 // 8, 64 // 8)]


@pytest.mark.parametrize("size", [(96, 96), (112, 80), (80, 112), (160, 48)])
def test_a_view_that_fits_the_grid_is_left_untouched(tiny_draft, size):
    # 112 x 80 is below the budget of 9000 px: smart_resize would blow it up to 128 x 96
    picture = Image.new("RGB", size)
    plain, pictures = normalise(
        [{"role": "user", "content": [{"type": "image", "image": picture}]}], tiny_draft.image_spec
    )
    assert pictures == [picture]
    assert plain == [{"role": "user", "content": [{"type": "image"}]}]
    request = GenerationRequest(
        "x", [{"role": "user", "content": [{"type": "image", "image": picture}]}], max_new_tokens=2
    )
    assert tiny_draft.prepared_row(request).grids == [(1, size[1] // 8, size[0] // 8)]


def test_pictures_in_the_openai_form_are_read_without_patching_any_library(tmp_path):
    spec = ImageSpec(factor=28, min_pixels=28 * 28, max_pixels=60 * 60)
    buffer = io.BytesIO()
    Image.new("RGB", (300, 300), "red").save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    path = tmp_path / "red.png"
    path.write_bytes(buffer.getvalue())
    parts = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "image_url", "image_url": url},
        {"type": "image", "image": str(path)},
        {"type": "image", "image": Image.new("RGB", (300, 300), "red")},
        {"type": "text", "text": "What is it?"},
    ]
    plain, pictures = normalise([{"role": "user", "content": parts}], spec)
    assert [p.size for p in pictures] == [(56, 56)] * 4
    assert {p.getpixel((9, 9)) for p in pictures} == {(255, 0, 0)}
    assert plain[0]["content"] == [{"type": "image"}] * 4 + [parts[4]]


def test_the_error_for_a_missing_model_names_the_remedies(tmp_path):
    with pytest.raises(UserError, match=r"no model here.*speceyes train.*hf download"):
        TransformersBackend(tmp_path / "nowhere")


def test_an_unsupported_architecture_is_refused_with_those_supported(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    with pytest.raises(ConfigError, match="LlamaForCausalLM is not supported") as refused:
        TransformersBackend(tmp_path)
    assert all(name in str(refused.value) for name in SUPPORTED)


@pytest.mark.parametrize("text", ["{", "[]", "null"])
def test_a_broken_model_configuration_is_a_user_error(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        check_architecture(tmp_path)


def test_a_weights_layout_in_memory_changes_neither_shapes_nor_values(tiny_draft):
    from torch.nn import Linear

    stored = TransformersBackend(MODELS / "draft", dtype="auto", device="cpu").model
    layers = dict(stored.named_modules())
    wide = 0
    for name, layer in tiny_draft.model.named_modules():
        if isinstance(layer, Linear):
            assert layer.weight.equal(layers[name].weight.float())
            wide += not layer.weight.is_contiguous()
    assert wide > 0
    assert tiny_draft.model.lm_head.weight is tiny_draft.model.get_input_embeddings().weight


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ConfigError, match="float33"):
        TransformersBackend(MODELS / "draft", dtype="float33")


def test_a_missing_gpu_is_refused():
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="no GPU"):
        TransformersBackend(MODELS / "draft", device="cuda")


@pytest.mark.parametrize(
    ("gpus", "device", "role", "placed"),
    [
        (0, "auto", "agent", "cpu"),
        (1, "auto", "agent", "cuda:0"),
        (2, "auto", "draft", "cuda:0"),
        (2, "auto", "agent", "cuda:1"),
        (2, "cuda:1", "draft", "cuda:1"),
        (2, "cpu", "agent", "cpu"),
    ],
)
def test_of_several_gpus_each_model_takes_one(monkeypatch, gpus, device, role, placed):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert transformers_backend.placement(device, role) == (placed, None)


def test_a_gpu_beyond_those_present_and_spreading_without_its_package_are_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"cuda:1 does not exist, torch sees 1 GPU"):
        transformers_backend.placement("cuda:1", "draft")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ConfigError, match="accelerate"):
            transformers_backend.placement("spread", "draft")


def test_auto_takes_the_weights_as_stored():
    assert TransformersBackend(MODELS / "draft", dtype="auto", device="cpu").dtype in ("bfloat16", "float16")


def test_info_identifies_the_model_without_a_folder_of_this_machine(tiny_draft):
    info = tiny_draft.info()
    assert info["architecture"] == "Qwen3VLForConditionalGeneration"
    assert len(info["fingerprint"]) == 64
    assert str(MODELS.parent) not in json.dumps(info)


# ------------------------------------------------------------------------------------------ intermediate layers


@pytest.fixture(scope="module")
def seen_inside(tiny_draft, requests):
    """The same answers, with what every intermediate layer predicted."""
    return tiny_draft.generate([replace(r, layers=99) for r in requests])


def test_recording_layers_changes_no_answer_and_no_other_evidence(batched, seen_inside):
    for plain, inside in zip(batched, seen_inside, strict=True):
        assert (plain.text, plain.token_ids) == (inside.text, inside.token_ids)
        assert plain.evidence.equals(replace(inside.evidence, layers=None))


def test_a_layer_predicts_what_the_model_cut_off_behind_it_answers(tiny_draft, requests, seen_inside):
    import torch

    depth, inputs = tiny_draft.depth, plain_inputs(tiny_draft, requests[:5])
    for at in range(depth - 1):
        with tiny_draft.cut_off_behind(at + 1), torch.inference_mode():
            logits = tiny_draft.model(**inputs, logits_to_keep=1).logits[:, -1]
        expected = logits.double().log_softmax(-1)
        for row, generation in zip(expected, seen_inside[:5], strict=True):
            layers = generation.evidence.layers
            assert (layers.depth, layers.numbers.tolist()) == (depth, list(range(1, depth)))
            top = row.sort(descending=True)
            assert layers.top_ids[0, at, 0] == top.indices[0]
            np.testing.assert_allclose(
                layers.top_logprobs[0, at], top.values[: layers.k], rtol=2e-3, atol=1e-3
            )
            chosen = row[generation.token_ids[0]]
            np.testing.assert_allclose(layers.chosen_logprobs[0, at], chosen, rtol=2e-3, atol=1e-3)


def test_the_state_of_a_token_is_what_the_head_predicts_it_from(tiny_draft, seen_inside):
    head = tiny_draft.model.lm_head.weight.detach().numpy().astype(float)
    for generation in seen_inside[:5]:
        evidence = generation.evidence
        assert evidence.layers.hidden.shape == (evidence.n_tokens, head.shape[1])
        logits = evidence.layers.hidden.astype(float) @ head.T
        assert logits.argmax(1).tolist() == evidence.token_ids.tolist()


def test_layers_are_the_same_alone_in_a_batch_and_condensed_step_by_step(tiny_draft, requests, seen_inside):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LayerRecorder, "BLOCK", 1)
        for request, expected in zip(requests[:3], seen_inside, strict=False):
            (alone,) = tiny_draft.generate(like(request, layers=99))
            a, b = alone.evidence.layers, expected.evidence.layers
            assert a.top_ids[..., 0].tolist() == b.top_ids[..., 0].tolist()
            np.testing.assert_allclose(a.chosen_logprobs, b.chosen_logprobs, rtol=5e-3, atol=5e-3)


def test_both_architectures_have_layers_and_each_request_its_own_number(tiny_agent, scene_samples):
    request = requests_for(scene_samples[:1], tiny_agent, max_new_tokens=6, evidence_k=8, layers=1)[0]
    one, none = tiny_agent.generate([request, replace(request, layers=0)])
    assert one.evidence.layers.top_ids.shape == (6, 1, 8)
    assert none.evidence.layers is None
    assert one.token_ids == none.token_ids


def test_layers_without_evidence_are_refused():
    with pytest.raises(ValueError, match="evidence_k"):
        GenerationRequest("x", [], 2, layers=2)


@given(st.integers(1, 80), st.integers(2, 80))
def test_layers_are_spaced_evenly_and_the_last_is_not_among_them(n, depth):
    numbers = spaced_layers(n, depth)
    assert len(numbers) == min(n, depth - 1)
    gaps = np.diff([0, *numbers, depth])
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 2
