"""The parameters of `train_demo_models`, checked like those of the stages (see `speceyes_lib.params`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class TrainParams(BaseModel):
    """One training run of one demo model."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, validate_default=True)

    which: Annotated[Literal["draft", "agent"], Field(description="model to train: draft or agent")] = "draft"
    seed: Annotated[int, Field(ge=0, description="seed of weights, scenes and questions")] = 0
    out: Annotated[
        str,
        Field(min_length=1, description="folder to write; the committed ones are data/demo/models/<which>"),
    ] = "data/runs/models/draft"
    threads: Annotated[
        int, Field(ge=1, description="CPU threads; one per model trains two models at once")
    ] = 2
    held_out: Annotated[int, Field(ge=5, description="samples of the final measurement")] = 300
    smoke: Annotated[
        bool, Field(description="two steps a phase: shows that everything runs, learns nothing")
    ] = False

    @property
    def run(self) -> str:
        """What the provenance header calls this: training belongs to no run."""
        return f"training of the demo {self.which}"
