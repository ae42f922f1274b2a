"""A local language model that writes one token after the other, with the alternatives of each.

What it has computed for one prompt is kept for the next one that begins alike, such as the next turn of a conversation
or a second guess.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, UserError
from ..paths import resolve, shown
from .transformers import placement

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(frozen=True)
class WrittenToken:
    """A generated token.

    id: in the vocabulary. text: what it completes.
    top_ids, top_logprobs: its most probable alternatives, itself first. top_texts: their texts.
    """

    id: int
    text: str
    top_ids: tuple[int, ...] = ()
    top_logprobs: tuple[float, ...] = ()
    top_texts: tuple[str, ...] = ()


class TextModel:
    """A loaded model folder with a tokenizer that has a chat template.

    Args:
        folder: as saved by `save_pretrained`.
        device: as for `TransformersBackend`.

    Raises:
        UserError: the folder holds no such model.
    """

    def __init__(self, folder: str | Path, device: str = "auto") -> None:
        self.folder = resolve(folder)
        if not (self.folder / "config.json").is_file():
            raise UserError(
                f"{shown(self.folder)}: no model here (config.json is missing); name a folder saved by "
                "save_pretrained, or fetch one: hf download ORGANISATION/NAME --local-dir FOLDER"
            )
        import torch
        import transformers

        self._torch = torch
        self.device, _ = placement(device, "agent")
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            model = transformers.AutoModelForCausalLM.from_pretrained(
                self.folder,
                local_files_only=True,
                dtype=torch.float32 if self.device == "cpu" else "auto",
            )
        except (OSError, ValueError, KeyError) as error:
            words = str(error).partition("\n")[0]
            raise UserError(
                f"{shown(self.folder)}: no language model can be loaded from it ({words})"
            ) from None
        if not self.tokenizer.chat_template:
            raise ConfigError(
                f"{shown(self.folder)}: the tokenizer has no chat template, which a dialogue needs"
            )
        self.model = model.to(self.device).eval()
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        self.end_ids = {*ends, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id} - {None}
        self.vocab_size = self.model.config.get_text_config().vocab_size
        tokenizer = (
            self.tokenizer
        )  # without a reference to `self`, so that a model is freed with its last user
        self._token_text = cache(lambda token: tokenizer.decode([token]))
        self._kept: list[tuple[list[int], DynamicCache]] = []
        self._lock = threading.Lock()

    def limit_threads(self, count: int) -> None:
        """Compute with so many threads of the processor, in all of this process."""
        self._torch.set_num_threads(count)

    def prompt(self, messages: Sequence[dict], schemas: Sequence[dict] = ()) -> list[int]:
        """The token ids of a conversation, up to where the model's turn begins."""
        text = self.tokenizer.apply_chat_template(
            list(messages), tools=list(schemas) or None, tokenize=False, add_generation_prompt=True
        )
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def turn(
        self,
        messages: Sequence[dict],
        schemas: Sequence[dict],
        prefix: Sequence[int | str],
        limit: int,
        alternatives: int = 0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[WrittenToken]:
        """The tokens of the model's next turn in a conversation.

        Args:
            messages: the conversation.
            schemas: of the tools.
            prefix: what the turn begins with, as token ids or texts.
            limit: as in `write`.
            alternatives: as in `write`.
            stopped: as in `write`.
        """
        prompt = self.prompt(messages, schemas)
        for part in prefix:
            prompt += (
                [part]
                if isinstance(part, int)
                else self.tokenizer(part, add_special_tokens=False)["input_ids"]
            )
        yield from self.write(prompt, limit, alternatives, stopped)

    def write(
        self,
        prompt: Sequence[int],
        limit: int,
        alternatives: int = 0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> Iterator[WrittenToken]:
        """The tokens that follow a prompt, greedy, without the end token.

        Args:
            prompt: token ids, at least one.
            limit: most tokens.
            alternatives: how many per token are returned, the token itself included; at most the vocabulary.
            stopped: asked before each token; True ends the turn.
        """
        torch, ids = self._torch, list(prompt)
        known, states = self._take(ids)
        new, written, shown_up_to = ids[known:], [], (0, 0)
        k = min(alternatives, self.vocab_size)
        try:
            for _ in range(limit):
                if stopped():
                    return
                with torch.inference_mode():
                    logits = self.model(
                        input_ids=torch.tensor([new], device=self.device),
                        past_key_values=states,
                        use_cache=True,
                        logits_to_keep=1,
                    ).logits[0, -1]
                    known += len(new)
                    if k:
                        top = logits.float().topk(k)
                        logprobs = (top.values - logits.float().logsumexp(-1)).tolist()
                        top_ids = top.indices.tolist()
                        token = top_ids[0]
                    else:
                        token, top_ids, logprobs = int(logits.argmax()), [], []
                if token in self.end_ids:
                    return
                ids.append(token)
                written.append(token)
                new = [token]
                text, shown_up_to = self._completed(written, *shown_up_to)
                texts = tuple(map(self._token_text, top_ids))
                yield WrittenToken(token, text, tuple(top_ids), tuple(logprobs), texts)
        finally:
            with self._lock:
                self._kept = [*self._kept[-1:], (ids[:known], states)]

    def _completed(self, written: list[int], begin: int, end: int) -> tuple[str, tuple[int, int]]:
        """The text that the last token completes. A character of several tokens comes with the last of them."""
        before = self.tokenizer.decode(written[begin:end], skip_special_tokens=True)
        after = self.tokenizer.decode(written[begin:], skip_special_tokens=True)
        if after.endswith("�") or len(after) <= len(before):
            return "", (begin, end)
        return after[len(before) :], (end, len(written))

    def _take(self, ids: list[int]) -> tuple[int, DynamicCache]:
        """What is known of the beginning of a prompt. At least its last token is computed again."""
        from transformers import DynamicCache

        with self._lock:
            lengths = [_common(ids, kept) for kept, _ in self._kept]
            best = max(range(len(lengths)), key=lengths.__getitem__, default=None)
            if best is None or lengths[best] < 1:
                return 0, DynamicCache(config=self.model.config)
            kept, states = self._kept.pop(best)
        known = min(lengths[best], len(ids) - 1)
        if any(layer.is_sliding for layer in states.layers):
            return 0, DynamicCache(config=self.model.config)
        if known < len(kept):
            states.crop(known - len(kept))
        return known, states


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common beginning."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
