"""Models that stay loaded between the stages of one process."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..models.base import Backend
from ..models.registry import backend_type
from ..params import AgentParams, DraftParams
from .funnel import ROUTER_EVIDENCE_K

Params = DraftParams | AgentParams
SETTINGS = ("dtype", "device", "attn", "min_pixels", "max_pixels")
KEPT_MODELS = 2  # a draft and an agent; a third takes the place of the oldest that the stage does not need


class LoadedModels:
    """The models one stage uses, by role. Checked at once, loaded when first needed, kept for the next stage."""

    _loaded: dict[tuple, Backend] = {}  # noqa: RUF012 (shared by all stages of this process, oldest first)

    def __init__(self, params: Params, roles: Sequence[str]) -> None:
        self.params, self.roles = params, tuple(roles)
        self.names = {role: getattr(params, f"{role}_model") for role in self.roles}
        self.types = {role: backend_type(model) for role, model in self.names.items()}
        for role, model in self.names.items():
            self.types[role].check(model)
        self.fingerprints = {role: self.types[role].fingerprint(model) for role, model in self.names.items()}
        self.settings = {name: getattr(params, name) for name in SETTINGS}

    def __getitem__(self, role: str) -> Backend:
        self.load()
        return self._loaded[self._key(role)]

    @property
    def served(self) -> bool:
        """Whether a server answers for one of them."""
        return any(kind.served for kind in self.types.values())

    def info(self) -> dict[str, dict]:
        """The models by role, with the dtype and device in use where a model was loaded."""
        loaded = {role: self._loaded.get(self._key(role)) for role in self.roles}
        return {
            role: (backend.info() if backend else {})
            | {"name": self.types[role].title(self.names[role]), "fingerprint": self.fingerprints[role]}
            for role, backend in loaded.items()
        }

    def load(self) -> dict[str, float]:
        """Load and warm up the models that are not loaded yet. Returns the seconds that took."""
        timing = {"load_s": 0.0, "warmup_s": 0.0}
        needed = [self._key(role) for role in self.roles]
        for role, key in zip(self.roles, needed, strict=True):
            if key in self._loaded:
                continue
            while len(self._loaded) >= KEPT_MODELS:
                del self._loaded[next(known for known in self._loaded if known not in needed)]
            p, start = self.params, time.perf_counter()
            backend = self.types[role].open(self.names[role], role, **self.settings)
            loaded = time.perf_counter()
            backend.warm_up()
            if self.types[role].served and role == "draft":
                backend.probe(p.k_store, required=p.if_fewer_alternatives == "refuse")
            elif self.types[role].served:
                backend.probe(ROUTER_EVIDENCE_K)
            timing["load_s"] += loaded - start
            timing["warmup_s"] += time.perf_counter() - loaded
            self._loaded[key] = backend
        return timing

    def _key(self, role: str) -> tuple:
        p = self.params
        alternatives = (p.k_store, p.if_fewer_alternatives) if self.types[role].served else ()
        return (role, self.names[role], self.fingerprints[role], *self.settings.values(), *alternatives)
