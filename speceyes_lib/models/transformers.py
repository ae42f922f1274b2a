"""Local models through Hugging Face transformers: batched, left-padded, greedy, with evidence on the fly."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError, UserError
from ..paths import resolve, shown
from ..runs.evidence import Evidence
from ..runs.provenance import folder_hash
from ..tasks.hub import ITEMS
from ..tasks.images import ImageSpec, resized_view
from .base import BackendType, Generation, GenerationRequest, generate_isolated, grey_picture_request
from .decoding import EvidenceRecorder, LayerRecorder, decode_batch
from .model_files import fault_of
from .picture_memory import Kept, PictureMemory, Row

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from transformers import DynamicCache

LAYER_K = 16  # alternatives kept per token and intermediate layer, at most
SUPPORTED = ("Qwen3VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration")


class TransformersBackend:
    """A loaded model folder as saved by `save_pretrained` (weights, config, processor).

    Args:
        model: the folder.
        role: "draft" or "agent", for messages and manifests.
        dtype: "auto" (as stored) or a torch dtype's name.
        device: "cpu", "mps", "cuda", "cuda:N"; "spread" splits the layers over all GPUs (needs accelerate); "auto"
            takes the best device, and for the agent the second of several GPUs, so that both models work side by side.
        attn: "auto" (flash-attn 2 on a GPU where it is installed, otherwise sdpa) or an implementation's name.
        min_pixels, max_pixels: image budget; by default that of the model's processor.

    Decoding is greedy over the raw logits. Penalties and sampling settings of the model's generation_config.json are
    dropped; its end tokens are kept.

    Raises:
        UserError: the folder holds no model.
        ConfigError: the architecture or a setting is not supported.
    """

    def __init__(
        self,
        model: str | Path,
        role: str = "draft",
        dtype: str = "auto",
        device: str = "auto",
        attn: str = "auto",
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ) -> None:
        self.folder, self.role = resolve(model), role
        self.architecture = check_architecture(self.folder)
        import torch
        import transformers

        self._torch = torch
        self.device, device_map = placement(device, role)
        wanted = dtype if dtype == "auto" else getattr(torch, dtype, None)
        if not isinstance(wanted, str | torch.dtype):
            raise ConfigError(f"dtype: {dtype!r} is no torch dtype; use auto, float32, bfloat16 or float16")
        if attn == "auto":
            flash = self.device.startswith("cuda") and dtype != "float32"  # it has no kernels for float32
            flash = flash and transformers.utils.is_flash_attn_2_available()
            attn = "flash_attention_2" if flash else "sdpa"
        self.attn = attn
        with _quiet_loading():
            self.processor = transformers.AutoProcessor.from_pretrained(self.folder, local_files_only=True)
            self.model = getattr(transformers, self.architecture).from_pretrained(
                self.folder,
                dtype=wanted,
                attn_implementation=attn,
                device_map=device_map,
                local_files_only=True,
            )
        self.model.eval() if device_map else self.model.to(self.device).eval()
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        if (self.device, self.dtype) == ("cpu", "float32"):
            read_in_one_stream(self.model)
        self.tokenizer = self.processor.tokenizer
        self.tokenizer.padding_side = "left"
        self.pad_id = self.tokenizer.pad_token_id
        ends = np.atleast_1d(self.model.generation_config.eos_token_id).tolist()
        self.end_ids = {self.pad_id, self.tokenizer.eos_token_id, *ends} - {None}
        self.vocab_size = self.model.config.get_text_config().vocab_size
        image = self.processor.image_processor
        self.image_spec = ImageSpec(
            factor=image.patch_size * image.merge_size,
            min_pixels=min_pixels or image.size["shortest_edge"],
            max_pixels=max_pixels or image.size["longest_edge"],
        )
        self._merge = image.merge_size
        self.image_token_id = self.model.config.image_token_id
        numbers = itertools.count(1)
        self.picture_memory = PictureMemory(lambda _: Kept(next(numbers)))
        # these functions do not refer to `self`, so that a model is freed with its last user
        tokenizer = self.tokenizer
        self._token_text = cache(lambda token: tokenizer.decode([token]))
        self._last_tokens = lru_cache(64)(partial(_last_tokens, tokenizer, self.vocab_size))

    # ------------------------------------------------------------------------------------ the contract
    def generate(
        self, requests: Sequence[GenerationRequest], unwanted: Callable[[], Container[str]] | None = None
    ) -> list[Generation]:
        """The generations, in order; see `Backend.generate`. Requests with equal settings share a batch.

        unwanted: called between two tokens of a batch; the ids of requests that end there, as if by their limit.
        """
        k = max((r.evidence_k for r in requests), default=0)
        if k > self.vocab_size:
            raise UserError(
                f"k_store: {k} alternatives per token are needed, but {shown(self.folder)} has a vocabulary of "
                f"{self.vocab_size}; set k_store (and k) to at most {self.vocab_size}"
            )
        batches: dict[tuple, list[int]] = {}
        for i, r in enumerate(requests):
            settings = (r.max_new_tokens, r.stop, r.evidence_k, r.layers, r.reuse, r.temperature)
            batches.setdefault(settings, []).append(i)
        generations: dict[int, Generation] = {}
        for members in batches.values():
            batch = generate_isolated(
                partial(self._generate_batch, unwanted=unwanted), [requests[i] for i in members]
            )
            generations.update(zip(members, batch, strict=True))
        return [generations[i] for i in range(len(requests))]

    def warm_up(self) -> None:
        """Generate one short answer about a grey picture, alone and in a pair."""
        request = grey_picture_request(self.image_spec, evidence_k=2)
        for generation in [*self.generate([request]), *self.generate([request, request])]:
            if generation.error:
                raise UserError(
                    f"{shown(self.folder)}: the model fails on a plain picture: {generation.error.message}"
                )

    def info(self) -> dict:
        """What identifies the model; see `Backend.info`."""
        return {
            "role": self.role,
            "name": self.folder.name,
            "architecture": self.architecture,
            "fingerprint": folder_hash(self.folder),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "vocab_size": self.vocab_size,
            "dtype": self.dtype,
            "device": self.device,
            "attn": self.attn,
            "min_pixels": self.image_spec.min_pixels,
            "max_pixels": self.image_spec.max_pixels,
        }

    @property
    def depth(self) -> int:
        """Layers of the language model."""
        return len(self.model.model.language_model.layers)

    @contextlib.contextmanager
    def cut_off_behind(self, layer: int) -> Iterator[None]:
        """Within this block the language model ends behind this layer, counted from 1; norm and head stay."""
        decoder = self.model.model.language_model
        every = decoder.layers
        decoder.layers = every[:layer]
        try:
            yield
        finally:
            decoder.layers = every

    # ---------------------------------------------------------------------------------------- one batch
    def _generate_batch(
        self, requests: list[GenerationRequest], unwanted: Callable[[], Container[str]] | None
    ) -> list[Generation]:
        first, rows = requests[0], [self.prepared_row(r) for r in requests]
        inputs = self.batch_tensors(rows, remember=first.reuse != "nothing")
        inside = (
            LayerRecorder(self.model, first.layers, min(LAYER_K, first.evidence_k)) if first.layers else None
        )
        recorder = EvidenceRecorder(first.evidence_k, inside) if first.evidence_k else None
        stopped = self._stopping(first.stop) if first.stop else None

        def given_up() -> list[int]:
            ids = unwanted()
            return [i for i, r in enumerate(requests) if r.id in ids]

        with self._torch.inference_mode(), inside or contextlib.nullcontext():
            decoded = decode_batch(
                self.model,
                inputs,
                first.max_new_tokens,
                self.end_ids,
                stopped,
                recorder,
                given_up if unwanted else None,
                first.temperature,
                (self.image_token_id, self.model.config.video_token_id),
            )
            layers = inside.evidence() if inside else [None] * len(rows)
        top_ids, top_logprobs = recorder.arrays() if recorder else (None, None)
        generations = []
        for i, (request, row, (tokens, ended)) in enumerate(zip(requests, rows, decoded, strict=True)):
            evidence, first_texts, end = None, (), None
            if recorder:
                n = len(tokens)
                ids, logprobs = top_ids[:n, i], top_logprobs[:n, i]
                texts = tuple(map(self._token_text, tokens))
                # greedy: the chosen token is the highest
                within = layers[i] and layers[i].of_tokens(range(len(tokens)))
                evidence = Evidence(tokens, texts, logprobs[:, 0], ids, logprobs, within)
                first_texts = tuple(map(self._token_text, top_ids[0, i].tolist()))
                if ended and not (stopped and tokens and stopped(tokens)):
                    ids, logprobs = top_ids[n : n + 1, i], top_logprobs[n : n + 1, i]
                    end = Evidence(
                        ids[:, 0], (self._token_text(int(ids[0, 0])),), logprobs[:, 0], ids, logprobs
                    )
            text = _cut(self.decode(tokens), request.stop)
            reason = "stop" if ended else "length"
            generations.append(
                Generation(request.id, text, tuple(tokens), reason, 0.0, 1, evidence, first_texts, end)
            )
            if row.kept is not None:
                self._keep(row, i, tokens, inputs)
        return generations

    def prepared_row(self, request: GenerationRequest) -> Row:
        """The tokens and pictures of a request, and how many are known from the last turn of its conversation."""
        messages, pictures = normalise(request.messages, self.image_spec)
        goes_on = messages[-1]["role"] == "assistant"
        prompt = self.processor.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=not goes_on, continue_final_message=goes_on
        )
        ids = np.array(self.tokenizer(prompt + request.prefill)["input_ids"], np.int64)
        places = np.flatnonzero(ids == self.image_token_id)
        if len(places) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures, but the prompt has {len(places)} places for one")
        # Pictures have their final size here: a cell of the language model is factor x factor pixels
        factor, merge = self.image_spec.factor, self._merge
        grids = [(1, p.height * merge // factor, p.width * merge // factor) for p in pictures]
        counts = np.ones(len(ids), np.int64)
        counts[places] = [h * w // merge**2 for _, h, w in grids]
        codes = ids.copy()
        codes[places] = [-self.picture_memory.of(p).number for p in pictures]
        codes, begins = np.repeat(codes, counts), (np.cumsum(counts) - counts)[places].tolist()
        row = Row(np.repeat(ids, counts), codes, pictures, grids, begins)
        if not pictures or request.reuse != "conversation":
            return row
        kept = self.picture_memory.of(pictures[0])
        return replace(row, kept=kept, start=kept.known(codes))

    def batch_tensors(self, rows: Sequence[Row], remember: bool = False) -> dict:
        """The input of `decode_batch`: a batch padded on the left, in each row the known part before the new one.

        padding  known  |  padding  new
        """
        torch = self._torch
        past = max(row.start for row in rows)
        new = max(len(row.ids) - row.start for row in rows)
        ids = torch.full((len(rows), past + new), self.pad_id)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            for part, end in ((row.ids[: row.start], past), (row.ids[row.start :], past + new)):
                ids[i, end - len(part) : end] = torch.from_numpy(part)
                mask[i, end - len(part) : end] = 1
        grids = [grid for row in rows for grid in row.grids]
        ids, mask = ids.to(self.device), mask.to(self.device)
        places, _ = self.model.model.get_rope_index(
            ids,
            mm_token_type_ids=(ids == self.image_token_id).int(),
            image_grid_thw=torch.tensor(grids, device=self.device) if grids else None,
            attention_mask=mask,
        )
        text_places = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": torch.cat([text_places[None], places]),
            "past_key_values": self._known(rows, past),
        }
        if pictures := [picture for row in rows for picture in row.new_pictures]:
            inputs["mm_encoder_outputs"] = {"image": self._features(pictures, remember)}
        return inputs

    def _features(self, pictures: Sequence[Image.Image], remember: bool) -> object:
        """The features of the pictures. Those that are not known are computed in one pass."""
        kept = [self.picture_memory.of(p) if remember else Kept(i) for i, p in enumerate(pictures)]
        unknown = {k.number: (k, p) for k, p in zip(kept, pictures, strict=True) if not k.features}
        if unknown:
            images = [picture for _, picture in unknown.values()]
            # Pictures have their final size. smart_resize is not idempotent under a tight budget (it may ask for
            # another size when given its own result), so the processor must not resize again.
            seen = self.processor.image_processor(images=images, do_resize=False, return_tensors="pt")
            with self._torch.inference_mode():
                computed = self.model.model.get_image_features(**seen.to(self.device), return_dict=True)
            deeper = getattr(computed, "deepstack_features", None) or []
            for (k, _), *features in zip(unknown.values(), computed.pooler_output, *deeper, strict=True):
                k.features = features
        first, *deeper = zip(*(k.features for k in kept), strict=True)
        return SimpleNamespace(pooler_output=first, deepstack_features=deeper)

    def _known(self, rows: Sequence[Row], past: int) -> DynamicCache:
        """The known keys and values, padded on the left to `past` tokens."""
        from transformers import DynamicCache

        cache = DynamicCache(config=self.model.config)
        known = [(i, row) for i, row in enumerate(rows) if row.start]
        for number, layer in enumerate(cache.layers if known else ()):
            first = known[0][1].kept.layers[number]
            pair = [t.new_zeros((len(rows), t.shape[0], past, t.shape[2])) for t in first]
            for i, row in known:
                for padded, kept in zip(pair, row.kept.layers[number], strict=True):
                    padded[i, :, past - row.start :] = kept[:, : row.start]
            layer.update(*pair)
        return cache

    def _keep(self, row: Row, i: int, tokens: Sequence[int], inputs: dict) -> None:
        """Keep row i of a finished batch for the next turn of its conversation."""
        cache = inputs["past_key_values"]
        if any(layer.is_sliding for layer in cache.layers):
            return  # its beginning is no longer kept
        prompt_length = inputs["input_ids"].shape[1]
        fed = tokens[: cache.get_seq_length() - prompt_length]  # the last token was never fed
        where = inputs["attention_mask"][i].nonzero()[:, 0]
        where = self._torch.cat([where, self._torch.arange(len(fed), device=where.device) + prompt_length])
        row.kept.codes = np.concatenate([row.codes, np.array(fed, np.int64)])
        row.kept.layers = [
            (layer.keys[i].index_select(1, where), layer.values[i].index_select(1, where))
            for layer in cache.layers
        ]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of tokens. Control tokens such as <|im_start|> are dropped, tags such as <tool_call> are not special."""
        return self.tokenizer.decode(token_ids, skip_special_tokens=True)

    def _stopping(self, stop: tuple[str, ...]) -> Callable[[list[int]], bool]:
        """A function that returns True once the tokens end in one of the stop strings."""
        last_tokens = self._last_tokens(stop)
        window = max(len(s.encode()) for s in stop)  # a token has at least one byte

        def stopped(tokens: list[int]) -> bool:
            return tokens[-1] in last_tokens and any(s in self.decode(tokens[-window:]) for s in stop)

        return stopped


def _last_tokens(tokenizer: Any, vocab_size: int, stop: tuple[str, ...]) -> frozenset[int]:
    """The tokens that contain the last character of a stop string; only after these are tokens decoded.

    In byte-level vocabularies an ASCII character stands for itself; any token may end another character.
    """
    ends = {s[-1] for s in stop}
    pieces = tokenizer.convert_ids_to_tokens(range(vocab_size))
    if not all(c.isascii() and not c.isspace() for c in ends):
        return frozenset(range(vocab_size))
    return frozenset(i for i, p in enumerate(pieces) if p is not None and not ends.isdisjoint(p))


def normalise(messages: Sequence[dict], spec: ImageSpec) -> tuple[list[dict], list]:
    """Chat messages in the form of a template, and their pictures in order at their final size.

    Image parts may be ``{"type": "image", "image": PIL or path}`` or OpenAI's ``{"type": "image_url",
    "image_url": {"url": ...}}``. A picture that already has the size of a view is left untouched.
    """
    plain, pictures = [], []
    for message in messages:
        content = message["content"]
        if not isinstance(content, str):
            parts = []
            for part in content:
                if part["type"] in ("image", "image_url"):
                    pictures.append(_picture(part.get("image", part.get("image_url")), spec))
                    part = {"type": "image"}
                parts.append(part)
            content = parts
        plain.append({"role": message["role"], "content": content})
    return plain, pictures


def _picture(source: Any, spec: ImageSpec) -> Image.Image:
    source = source["url"] if isinstance(source, dict) else source
    if isinstance(source, str):
        from qwen_vl_utils import fetch_image

        budget = {"min_pixels": spec.min_pixels, "max_pixels": spec.max_pixels}
        return fetch_image({"image": source, **budget}, image_patch_size=spec.factor // 2)
    return source if _is_view(*source.size, spec) else resized_view(source, spec)


def _is_view(width: int, height: int, spec: ImageSpec) -> bool:
    """True for a size that smart_resize returns: whole cells, within the budget up to one cell of rounding per side."""
    f = spec.factor
    small_enough = (width - f) * (height - f) <= spec.max_pixels
    return width % f == height % f == 0 and small_enough and (width + f) * (height + f) >= spec.min_pixels


def placement(device: str, role: str) -> tuple[str, str | None]:
    """The device for a model's inputs, and transformers' device map if the model is split.

    Raises:
        ConfigError: this machine does not have the device.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        if gpus:
            return f"cuda:{1 if role == 'agent' and gpus > 1 else 0}", None
        return "cpu", None
    if device not in ("cpu", "mps") and not gpus:
        raise ConfigError(f"device: {device!r} needs a GPU, but torch sees no GPU; use auto or cpu")
    if device == "spread":
        if importlib.util.find_spec("accelerate") is None:
            raise ConfigError("device: 'spread' needs the package accelerate; install it, or name one device")
        return "cuda:0", "balanced"
    if device.startswith("cuda:") and int(device[5:]) >= gpus:
        raise ConfigError(
            f"device: {device} does not exist, torch sees {gpus} GPU(s); use auto or a lower number"
        )
    return device, None


def read_in_one_stream(model: torch.nn.Module) -> None:
    """Store the weights of widening layers column by column. Shapes and values stay the same.

    A token that is decoded alone uses each weight once, so the time is that of reading them. Row by row, MKL needs up
    to three times as long for tall matrices (benchmarks/bench_decoding.py).
    """
    from torch.nn import Linear

    for layer in model.modules():
        if isinstance(layer, Linear) and layer.out_features > layer.in_features:
            layer.weight.data = layer.weight.data.t().contiguous().t()


def check_architecture(model: str | Path) -> str:
    """Name of the model class in the folder's config.json. No model library is imported.

    Raises:
        UserError: the folder holds no model, or files of it are missing or cut off.
        ConfigError: the architecture is not supported.
    """
    folder = resolve(model)
    config = folder / "config.json"
    remedy = (
        "The embedded models belong to the repository (git checkout -- data/demo/models); `speceyes train` trains "
        f"them again. A published model is fetched by `hf download ORGANISATION/NAME --local-dir {shown(folder)}`"
    )
    for name, item in ITEMS.items():
        if resolve(item.folder) == folder:
            remedy = f"Fetch it: speceyes fetch {name}"
    if not config.is_file():
        raise UserError(f"{shown(folder)}: no model here (config.json is missing). {remedy}")
    try:
        names = json.loads(config.read_text("utf-8")).get("architectures") or ["(none)"]
    except (ValueError, AttributeError) as e:
        raise UserError(f"{shown(config)}: not valid JSON ({e}); fetch the model again") from e
    if names[0] not in SUPPORTED:
        raise ConfigError(
            f"{shown(config)}: field 'architectures': {names[0]} is not supported; supported are {', '.join(SUPPORTED)}"
        )
    if fault := fault_of(folder):
        raise UserError(f"{shown(folder)}: the model cannot be loaded: {fault}. {remedy}")
    return names[0]


def _cut(text: str, stop: tuple[str, ...]) -> str:
    """The text up to and including the first stop string in it."""
    return text[: min((text.find(s) + len(s) for s in stop if s in text), default=len(text))]


@contextlib.contextmanager
def _quiet_loading() -> Iterator[None]:
    """Keep progress bars of weight loading out of executed notebooks."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()


# a folder may have any name, so that every text names one
BACKEND = BackendType(
    takes=lambda model: True,
    check=check_architecture,
    fingerprint=lambda model: folder_hash(resolve(model)),
    title=lambda model: shown(resolve(model)),
    identity=str,
    open=TransformersBackend,
    served=False,
)
