"""Gates that look inside the draft model: what its intermediate layers add to the scores of its output.

A run that recorded no layers is drafted again with them, in a run of its own, `<run>_layers`: verdicts and agents stay
those of the run. A draft whose answer came out differently there is left out, because its verdict is not known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ..gating import certificates, layers
from ..gating.calibration_samples import calibration_half
from ..gating.separability import deciding_token
from ..inference.loaded_models import LoadedModels
from ..inference.stages import load_samples, preview_drafts, run_draft_stage
from ..judging.rules import judge
from ..models.token_texts import token_text
from ..params import LayerGatesParams
from ..replay import early_exit
from ..runs import recorded_run
from ..runs.arms import DRAFT_STAGE
from ..runs.evidence import Evidence
from ..runs.stage import finish_stage
from ..stats.paired import paired_test
from ..tasks.sample import Sample, shown_as
from .confidence_data import ConfidenceData, gather_confidence, rule_results, scores_of_layers
from .redrafting import redrafting

STAGE = "study_layer_gates"
_ENDS = re.compile(r"<\|[^|]*\|>")  # control tokens: an answer that predicts one ends there
Progress = Callable[..., None]


@dataclass(frozen=True, eq=False)
class LayerRun:
    """A run with what the layers of its draft model predicted.

    Attributes:
        params: of the notebook.
        run: the run; its `scores` hold those from inside the draft model as well.
        evidence: of the drafts, by sample id, with layers.
        recorded_in: name of the run that holds the layers.
        n_other: drafts whose answer came out differently when they were drafted again; they are left out.
        text_of: token id -> its text.
    """

    params: LayerGatesParams
    run: ConfidenceData
    evidence: Mapping[str, Evidence]
    recorded_in: str
    n_other: int
    text_of: Callable[[int], str]

    def layer_by_layer(self, id_: str) -> pd.DataFrame:
        """What each layer predicts at the deciding token of a draft, the last layer in the last row.

        Columns: layer, predicts (text), p_predicted, p_answer (of the token that the draft has there).
        """
        one = self.evidence[id_]
        at = deciding_token(one.top_logprobs, min(self.run.setting.k, one.k)) or 0
        inside, last = one.layers, float(np.exp(one.top_logprobs[at, 0]))
        return pd.DataFrame(
            {
                "layer": [*inside.numbers, inside.depth],
                "predicts": [*map(self.text_of, inside.top_ids[at, :, 0].tolist()), one.token_texts[at]],
                "p_predicted": [*np.exp(inside.top_logprobs[at, :, 0].astype(float)), last],
                "p_answer": [*np.exp(inside.chosen_logprobs[at].astype(float)), last],
            }
        )

    def certified(
        self, names: Sequence[str], passes: float = 0.2, repeats: int = 20, seed: int = 0
    ) -> pd.DataFrame:
        """What each score accepts under the same promise: at most a share `passes` of the wrong drafts is accepted.

        The promise is class-conditional split conformal (`wrong_passes`). In every repeat the samples are divided into
        a half to learn on and two quarters, to calibrate and to test. Only the probe learns: it is fitted to the first
        part alone, so that the promise holds for it as well. All scores have the same parts. Every sample is drafted
        here, also those that the run's router sends to the agent.

        Returns:
            A row per score: `score` and the columns of `rule_results`.
        """
        rule = next(r for r in certificates.certification_rules(passes=passes) if r.name == "wrong_passes")
        states = layers.deciding_states(self.evidence, list(self.run.frame["id"]))
        certifiable = self.run.certifiable
        parts: dict[str, list[pd.DataFrame]] = {name: [] for name in names}
        for repeat in range(repeats):
            learn = calibration_half(self.run.data.groups, self.run.data.tasks, seed + repeat)
            run = replace(self.run, setting=replace(self.run.setting, router="none"))
            if "probe" in parts:
                values = probe_of(states, self.run.right, learn & self.run.drafted)
                run = replace(run, data=run.data.with_scores({"probe": values}))
            for name in names:
                rest = run.to_certify(name).take(~learn[certifiable])
                half = calibration_half(rest.groups, rest.strata, seed + repeat)
                rows = certificates.evaluate_rules(rest.take(half), rest.take(~half), [rule], seed + repeat)
                parts[name].append(rows[rows["rule"] == rule.name])
        tables = {name: rule_results(pd.concat(rows), [rule]) for name, rows in parts.items()}
        return pd.concat(tables, names=["score"]).reset_index().drop(columns="rule")

    def early_exits(
        self,
        firsts: Sequence[int] = (),
        thresholds: Sequence[float] = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999),
    ) -> pd.DataFrame:
        """What drafts that stop at an intermediate layer would have answered and saved, a row per rule.

        The ceiling comes first (`rule` "ceiling": every token leaves as soon as it stays what the whole model
        predicts), then each first layer with each threshold ("exit"; see `replay.early_exit`), then the whole model
        ("whole"). An answer that changes is judged by rule, as the run was.

        Args:
            firsts: first layers at which a token may leave; (): the recorded ones.
            thresholds: probabilities; 0: every token leaves at the first layer.

        Returns:
            rule, first, threshold, layers (computed per token, mean), checks (products with the head per token beyond
            one), saved_pct (of the layers), n, n_changed (answers that differ), n_inexact (of them, those with tokens
            behind the changed one, which were never generated), accuracy_pct, won and lost (answers that became right
            and wrong), diff_pp with diff_low_pp and diff_high_pp against the whole draft, paired.
        """
        ids, data = self.predictions
        right = self._right(ids)
        groups = self.run.frame.set_index("id").loc[ids, "group"].to_numpy()
        rules = [("ceiling", np.nan, np.nan, early_exit.best_exits(data))]
        for first in firsts or data.numbers[:-1].tolist():
            rules += [("exit", first, t, early_exit.exits(data, t, first)) for t in thresholds]
        rules.append(("whole", data.depth, np.nan, early_exit.exits(data, 2.0, data.depth)))
        rows = []
        for rule, first, threshold, taken in rules:
            now = right.copy()
            for i in np.flatnonzero(taken.changed):
                now[i] = self._is_right(ids[i], taken.tokens[data.offsets[i] : data.offsets[i + 1]])
            test = paired_test(now, right, groups, self.params.resampling)
            rows.append(
                {
                    "rule": rule,
                    "first": first,
                    "threshold": threshold,
                    "layers": taken.layers.mean(),
                    "checks": taken.checks.mean(),
                    "saved_pct": 100 * (1 - taken.layers.mean() / data.depth),
                    "n": len(ids),
                    "n_changed": int(taken.changed.sum()),
                    "n_inexact": int((~taken.exact).sum()),
                    "accuracy_pct": 100 * now.mean(),
                    "won": test.b,
                    "lost": test.c,
                    "diff_pp": test.difference.value,
                    "diff_low_pp": test.difference.low,
                    "diff_high_pp": test.difference.high,
                }
            )
        return pd.DataFrame(rows)

    def settled(self) -> pd.DataFrame:
        """Drafts by the layer at which their last token settles: layer, n, share_pct, right_pct, up_to_pct."""
        ids, data = self.predictions
        settled = [int(layers.settling_layers(self.evidence[i]).max()) for i in ids]
        frame = pd.DataFrame({"layer": settled, "right": self._right(ids)})
        table = frame.groupby("layer")["right"].agg(["size", "mean"]).reindex(data.numbers, fill_value=0)
        table = table.rename_axis("layer").reset_index().rename(columns={"size": "n"})
        table["share_pct"] = 100 * table["n"] / max(len(ids), 1)
        table["right_pct"] = (100 * table["mean"]).where(table["n"] > 0)
        return table.assign(up_to_pct=table["share_pct"].cumsum()).drop(columns="mean")

    def seconds_by_depth(self, samples: int = 32, repeats: int = 5) -> pd.DataFrame:
        """Measured seconds of a draft's first token with the model cut off behind each layer: layers, draft_s.

        The depths take turns, so that a machine that becomes slower does so for all; the shortest of the repeats
        counts. One token, because a model that is cut off would end its answers elsewhere.
        """
        again = redrafting(self.params.run, self.params.tasks, "layers", max_new_tokens=1)
        batch = load_samples(again, again.tasks[0])[:samples]
        backend = LoadedModels(again, ["draft"])["draft"]
        depths = list(range(1, backend.depth + 1))
        shortest = dict.fromkeys(depths, np.inf)
        for turn in range(repeats):
            for depth in depths[turn % len(depths) :] + depths[: turn % len(depths)]:
                with backend.cut_off_behind(depth):
                    seconds = sum(record.draft_s for record, _ in preview_drafts(again, batch)) / len(batch)
                shortest[depth] = min(shortest[depth], seconds)
        return pd.DataFrame({"layers": depths, "draft_s": list(shortest.values())})

    @cached_property
    def predictions(self) -> tuple[list[str], early_exit.LayerPredictions]:
        """Judged drafts with tokens, in the order of the run, and what every layer predicted of them."""
        judged = self.run.frame.loc[self.run.drafted, "id"]
        ids = [i for i in judged if i in self.evidence and self.evidence[i].n_tokens]
        answers = [self.evidence[i] for i in ids]
        inside = [one.layers for one in answers]
        predicted = [
            np.column_stack([e.top_ids[:, :, 0], a.token_ids]) for e, a in zip(inside, answers, strict=True)
        ]
        logprobs = [
            np.column_stack([e.top_logprobs[:, :, 0], a.top_logprobs[:, 0]])
            for e, a in zip(inside, answers, strict=True)
        ]
        numbers = np.append(inside[0].numbers, inside[0].depth).astype(np.int64)
        offsets = np.cumsum([0, *(one.n_tokens for one in answers)])
        stacked = np.concatenate(predicted), np.exp(np.concatenate(logprobs).astype(np.float64))
        return ids, early_exit.LayerPredictions(numbers, offsets, *stacked)

    def _right(self, ids: Sequence[str]) -> np.ndarray:
        return pd.Series(self.run.right, index=self.run.frame["id"]).loc[ids].to_numpy()

    def _is_right(self, id_: str, tokens: np.ndarray) -> bool:
        text = _ENDS.split("".join(map(self.text_of, tokens.tolist())))[0]
        return judge(self._samples[id_], text, self.run.data.protocol).verdict == "right"

    @cached_property
    def _samples(self) -> dict[str, Sample]:
        """The benchmark's samples in the order of options that was shown, by id."""
        recorded = recorded_run.open(self.recorded_in, tasks=self.params.tasks)
        return {i: shown_as(recorded.sample(i), r.options_shown) for i, r in recorded.drafts().items()}

    def write(self, tables: Mapping[str, pd.DataFrame], figures: Sequence[Path] = ()) -> Path:
        """Write the tables, by file name, and the manifest over them and the run's `figures`; the stage's folder."""
        layered = recorded_run.open(self.recorded_in, tasks=self.params.tasks)
        return finish_stage(
            self.params.run,
            STAGE,
            self.params.stage_config(),
            files=tables,
            counts=len(self.evidence),
            inputs={task: layered.stage(DRAFT_STAGE, task).sha256 for task in layered.tasks},
            figures=figures,
        )


def probe_of(states: np.ndarray, right: np.ndarray, learn: np.ndarray) -> np.ndarray:
    """The probe's probability for every sample with a state, fitted to those of `learn`; nan where it cannot learn."""
    known = ~np.isnan(states).any(axis=1) if states.shape[1] else np.zeros(len(states), bool)
    learn = learn & known
    values = np.full(len(states), np.nan)
    if right[learn].any() and not right[learn].all():
        model = layers.probe_model(states.shape[1]).fit(states[learn], right[learn])
        values[known] = model.predict_proba(states[known])[:, 1]
    return values


def look_inside(params: LayerGatesParams, progress: Progress) -> LayerRun:
    """The run with the layers of its drafts, which are drafted again where it recorded none.

    Raises:
        StageError: the run has no drafts, no instrumented arm or no verdicts.
        ConfigError: its drafts were imported or served, so that no layer can be recorded.
    """
    run = gather_confidence(params)
    recorded = recorded_run.open(params.run, tasks=params.tasks)
    model = str(recorded.config(DRAFT_STAGE).get("draft_model", ""))
    evidence, answers = recorded.all_evidence(), {i: draft.answer for i, draft in recorded.drafts().items()}
    if not layers.has_layers(evidence):
        drafting = redrafting(
            params.run, recorded.tasks, "layers", layers=params.layers, if_changed=params.if_changed
        )
        run_draft_stage(drafting, progress)
        recorded = recorded_run.open(drafting.run, tasks=recorded.tasks)
        evidence = recorded.all_evidence()
    drafts = recorded.drafts()
    same = {i: one for i, one in evidence.items() if drafts[i].answer == answers.get(i)}
    missing = {what: why for what, why in run.missing.items() if why != layers.NO_LAYERS}
    inside = scores_of_layers(same, run.frame, missing, params.seed)
    table = run.scores.drop(columns=inside.columns, errors="ignore").join(inside)
    data = run.data.with_scores({name: inside[name].to_numpy() for name in inside})
    run = replace(run, scores=table, data=data, missing=missing)
    return LayerRun(params, run, same, recorded.name, len(evidence) - len(same), token_text(model))
