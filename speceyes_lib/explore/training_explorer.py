"""The explorer of training: one prompt of a step, its group, and what each of its trajectories wrote and was paid."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import pandas as pd

from ..errors import UserError
from ..report.sample_page import no_sample, styled_page
from . import training_groups as groups
from .browser_parts import PictureView, SampleList
from .training_groups import GroupView, PictureOf
from .widgets import Explorer, columns, control, row, show_picture

if TYPE_CHECKING:
    from IPython.display import HTML


class TrainingExplorer(Explorer):
    """Browse the trajectories of training runs, step after step and prompt after prompt.

    Args:
        rollouts: of `formats.read_training_runs`.
        view: where to begin; what it leaves open is the first of the run.
        pictures: returns the picture of a prompt where it is known; None: no picture is.
    """

    def __init__(
        self, rollouts: pd.DataFrame, view: GroupView | None = None, pictures: PictureOf | None = None
    ) -> None:
        super().__init__(view or GroupView())
        self.rollouts, self.pictures, self.table = rollouts, pictures, rollouts.head(0)
        runs = rollouts[["arm", "seed"]].drop_duplicates() if len(rollouts) else pd.DataFrame()
        self.runs = [(str(arm), int(seed)) for arm, seed in runs.itertuples(index=False)]
        self.run = control(w.Dropdown, "run", options=[("none", None)])
        self.step = control(w.SelectionSlider, "step", 400, options=[0], continuous_update=False)
        self.show = control(w.Dropdown, "show", options=list(groups.SHOWN))
        self.prompt = control(w.Dropdown, "prompt", 800, options=[("none", "")])
        self.samples = SampleList(columns=list(groups.COLUMNS))
        self.picture = PictureView()
        self.question, self.trajectory = w.HTML(), w.HTML()
        self._start("")

    def still(self, **changes: Any) -> HTML:
        """The first trajectory that this view lists, with `changes`, without a kernel."""
        from IPython.display import HTML

        view = replace(self.view, **changes)
        table = groups.step_table(self.rollouts, view) if self.runs else self.rollouts
        listed = table[groups.SHOWN[view.show](table)] if len(table) else table
        if len(listed) and view.prompt in set(listed["prompt"]):
            listed = listed[listed["prompt"] == view.prompt]
        if not len(listed):
            return HTML(styled_page("<p>No trajectory is listed.</p>"))
        first = listed.sort_values("advantage", ascending=False, kind="stable").iloc[0]
        page, text = groups.trajectory_page(first.to_dict(), self.pictures)
        line = f"<p>{html.escape(groups.step_line(table))}</p>"
        return HTML(styled_page(line, page.part("question"), page.part("picture"), text))

    def _layout(self) -> list[w.Widget]:
        sample = [self.question, self.picture, self.trajectory]
        return [
            row(self.run, self.step, self.show),
            self.prompt,
            self.message,
            columns(
                w.VBox([self.samples], layout=w.Layout(width="445px")),
                w.VBox(sample, layout=w.Layout(flex="1 1 340px", min_width="320px")),
            ),
        ]

    def _connect(self) -> None:
        self._on(self.run, lambda run: self.set(arm=run[0], seed=run[1]))
        for name in ("step", "show", "prompt"):
            self._on(getattr(self, name), lambda value, name=name: self.set(**{name: value}))
        self._on(self.samples, lambda id_: self.set(sample=id_), "chosen")

    def _open(self, _: str) -> None:
        if not self.runs:
            raise UserError(
                "the run has no dumped trajectories; set trainer.rollout_data_dir when it is trained, and name the "
                "folder that holds it"
            )
        run = (self.view.arm, self.view.seed)
        run = run if run in self.runs else self.runs[0]
        self._set(
            self.run, options=[(f"{arm}, seed {seed}", (arm, seed)) for arm, seed in self.runs], value=run
        )
        self.set(arm=run[0], seed=run[1])

    def set(self, **changes: Any) -> None:
        """Change the view; shows what follows from it."""
        self.view = view = replace(self.view, **changes)
        run = self.rollouts[(self.rollouts["arm"] == view.arm) & (self.rollouts["seed"] == view.seed)]
        steps = sorted(int(step) for step in run["step"].unique())
        step = view.step if view.step in steps else steps[0]
        self._set(self.step, options=steps, value=step)
        self.view = view = replace(view, step=step)
        self.table = groups.step_table(self.rollouts, view)
        listed = self.table[groups.SHOWN[view.show](self.table)]
        options = groups.prompt_options(self.table[self.table["prompt"].isin(listed["prompt"])])
        names = [name for _, name in options]
        prompt = view.prompt if view.prompt in names else next(iter(names), "")
        self._set(self.prompt, options=options or [("none", "")], value=prompt)
        rows = groups.trajectory_rows(listed[listed["prompt"] == prompt])
        ids = [entry["id"] for entry in rows]
        sample = view.sample if view.sample in ids else next(iter(ids), "")
        self.view = replace(view, prompt=prompt, sample=sample)
        self._set(self.samples, rows=rows, chosen=sample, caption=groups.step_line(self.table))
        self._show_sample()

    def _show_sample(self) -> None:
        if not self.view.sample:
            self.question.value = self.trajectory.value = ""
            show_picture(self.picture, no_sample().picture)
            return
        chosen = self.table.set_index("id", drop=False).loc[self.view.sample]
        page, self.trajectory.value = groups.trajectory_page(chosen.to_dict(), self.pictures)
        self.question.value = page.part("question")
        show_picture(self.picture, page.picture)
