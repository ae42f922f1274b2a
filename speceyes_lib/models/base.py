"""The contract between the backends that generate and their callers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from ..errors import UserError
from ..runs.records import Failure
from .thoughts import visible_tokens, without_thoughts

if TYPE_CHECKING:
    from ..runs.evidence import Evidence
    from ..tasks.images import ImageSpec

Reuse = Literal["nothing", "pictures", "conversation"]
NO_THOUGHTS = (
    "turn the model's thoughts off, or allow more tokens"  # the remedy where an answer is only a thought
)


@dataclass(frozen=True)
class GenerationRequest:
    """A request for one assistant turn.

    id: of the sample, for error messages.
    messages: chat messages, oldest first; image parts are ``{"type": "image", "image": PIL.Image}``. If the last
        one is the assistant's, the model continues that turn.
    max_new_tokens: upper bound, the end token included.
    stop: strings that end the turn; the string that ended it stays in the text.
    prefill: the first words of the assistant turn; the generation's text does not repeat them.
    evidence_k: how many of the highest log-probabilities per token to keep; 0 keeps none.
    layers: of how many intermediate layers the evidence holds the predictions, evenly spaced. Only a local model has
        them (`BackendType.served`).
    reuse: what a backend may keep between requests with the same picture objects: the pictures' features, or the
        common beginning of the conversation. Answers do not depend on it.
    role: the model that an agent wants; a backend is one model and ignores it.
    temperature: 0 decodes greedily. Above, tokens are sampled from the whole vocabulary; there is no evidence then.
    """

    id: str
    messages: list[dict]
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    prefill: str = ""
    evidence_k: int = 0
    layers: int = 0
    reuse: Reuse = "nothing"
    role: Literal["small", "large"] = "large"
    temperature: float = 0.0

    def __post_init__(self) -> None:
        if self.temperature and self.evidence_k:
            raise ValueError("evidence is that of greedy decoding; request it without a temperature")
        if self.layers and not self.evidence_k:
            raise ValueError("layers are a part of the evidence; request evidence_k as well")


@dataclass(frozen=True)
class Generation:
    """The result of one request.

    text: without special tokens, tags such as <tool_call> kept.
    token_ids: without the end token; -1 each where a server names tokens by their text only.
    finish_reason: "stop" (end token or stop string), "length" (cut off at max_new_tokens) or "error".
    generate_s: this request's share of the clock: seconds of its batch / batch_size.
    evidence: one row per token of `token_ids`, if requested.
    first_texts: the texts of the first token's alternatives, highest first, if evidence was requested.
    end: evidence of the end token, if one ended the answer of a local model and evidence was requested.
    error: set when this request failed; the other requests of its batch are not affected.
    means: with `error`, the kind of fault where server or memory failed and not this request ("unreachable",
        "out_of_memory"). The sample is done again later.
    """

    id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: Literal["stop", "length", "error"]
    generate_s: float
    batch_size: int
    evidence: Evidence | None = None
    first_texts: tuple[str, ...] = ()
    end: Evidence | None = None
    error: Failure | None = None
    means: str = ""


@runtime_checkable
class Backend(Protocol):
    """A model that answers requests.

    image_spec: its picture sizes.
    vocab_size: size of the vocabulary; for a server, the number of alternatives per token that it returns.
    """

    image_spec: ImageSpec
    vocab_size: int

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """The generations, in the order of the requests. A failed request has `error` set and does not raise.

        Raises:
            UserError: a mistake of the user's, such as a K larger than the vocabulary.
        """

    def warm_up(self) -> None:
        """Pay one-off costs (lazy initialisation, kernels) before the clock starts."""

    def info(self) -> dict:
        """What identifies the model for the manifest: name, architecture, fingerprint, dtype, device."""


@dataclass(frozen=True)
class BackendType:
    """What is known about the models of a backend before one is opened. The functions take a model's text in a config.

    takes: True for a text that names a model of this backend.
    check: raises UserError if the model cannot be opened. It loads nothing and sends no request.
    fingerprint: sha256 of what identifies the model.
    title: its name for readers, without a host or a folder of this machine.
    identity: its name in manifests, which stays the same when a server moves. Raises ConfigError for a text that
        cannot be right.
    open: (model, role, dtype=, device=, attn=, min_pixels=, max_pixels=) -> the backend.
    served: the model runs elsewhere. Such a backend has `probe(k, required)`, which finds out how many alternatives per
        token it returns.
    """

    takes: Callable[[str], bool]
    check: Callable[[str], object]
    fingerprint: Callable[[str], str]
    title: Callable[[str], str]
    identity: Callable[[str], str]
    open: Callable[..., Backend]
    served: bool


def generate_isolated(
    generate: Callable[[list[GenerationRequest]], list[Generation]], requests: Sequence[GenerationRequest]
) -> list[Generation]:
    """The generations of a batch, with timings. If the batch raises, its requests run one by one, so that one fails.

    All requests share the time of the failed attempt, so that shares still sum to the clock. UserError is passed on,
    because it concerns all requests.
    """
    requests = list(requests)
    start = time.perf_counter()
    try:
        generations = generate(requests)
    except UserError:
        raise
    except Exception as e:  # any failure of a model call is a result of the sample concerned
        lost_s = (time.perf_counter() - start) / len(requests)
        if len(requests) == 1:
            return [failed(requests[0], f"{type(e).__name__}: {e}", lost_s, _means(e))]
        singles = [generate_isolated(generate, [r])[0] for r in requests]
        return [replace(g, generate_s=g.generate_s + lost_s) for g in singles]
    share_s = (time.perf_counter() - start) / max(1, len(requests))
    return [replace(g, generate_s=share_s, batch_size=len(requests)) for g in generations]


def failed(request: GenerationRequest, message: str, generate_s: float, means: str = "") -> Generation:
    """The generation of a request that failed. `means`: see `Generation`."""
    failure = Failure(type="generation_error", message=message[:500])
    return Generation(request.id, "", (), "error", generate_s, 1, error=failure, means=means)


def _means(error: Exception) -> str:
    """The kind of fault where memory or the GPU failed, "" for any other exception of a model call."""
    text = str(error).lower()  # torch raises plain RuntimeErrors on some devices
    if isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text:
        return "out_of_memory"
    return "gpu_error" if "cuda error" in text or type(error).__name__ == "AcceleratorError" else ""


def answer_only(generation: Generation) -> Generation:
    """The generation without its thoughts, and with the evidence of the other tokens; a failure if nothing else came.

    `token_ids` keep the thoughts, which cost time.
    """
    text, evidence = without_thoughts(generation.text), generation.evidence
    if not text and generation.text.strip():
        message = f"the answer holds only a thought: {generation.text.strip()[:200]!r}; {NO_THOUGHTS}"
        failure = Failure(type="generation_error", message=message)
        return replace(generation, text="", finish_reason="error", evidence=None, error=failure)
    if evidence is not None and len(kept := visible_tokens(evidence.token_texts)) < evidence.n_tokens:
        evidence = evidence.of_tokens(kept)
    return replace(generation, text=text, evidence=evidence)


def grey_picture_request(
    spec: ImageSpec, evidence_k: int, max_new_tokens: int = 4, stop: tuple[str, ...] = ()
) -> GenerationRequest:
    """A short question about a small grey picture, to warm a model up or to find out what a server returns."""
    from PIL import Image

    side = spec.factor * max(1, round(spec.min_pixels**0.5) // spec.factor)
    picture = {"type": "image", "image": Image.new("RGB", (side, side), "grey")}
    question = {"type": "text", "text": "What colour is it? Answer with one word."}
    messages = [{"role": "user", "content": [picture, question]}]
    return GenerationRequest("grey picture", messages, max_new_tokens, stop, evidence_k=evidence_k)
