"""The embedded study of tool speculation, read from its folder or its packed file, as frames."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from ..paths import resolve, shown
from ..replay.tool_playing import ToolSetting, hideable_s
from ..replay.tool_speculation import ceiling, over_tool_share, replay_tools
from ..replay.tool_steps import RECORDED, Latency, ToolSteps, flatten_runs, other_waits
from ..runs.packed import opened
from ..stats.paired import speedup
from ..stats.resampling import DEFAULT_BOOTSTRAP, Bootstrap
from ..tool_speculation.records import TaskRun, read_runs
from ..tools.waits import Waits
from .guess_gate import compare_guess_scores, gate_front, predictor_baselines
from .tool_arms import Arms, audit_arms, audit_findings, compare_all, replayed_arms
from .tool_ledger import ceiling_losses, guess_ledger, ledger_by
from .tool_timeline import timeline

PLAN, PARAMETERS, RUNS = "plan.json", "parameters.json", "runs.jsonl"
VALIDATION, VISION = "validation", "vision"
BASELINE, SHADOW = "baseline", "shadow"
FULL = "science"  # the profile that has all arms
GATE_COLUMNS = ["label", "threshold", "executed", "saving_pct", "waste_pct", "speedup", "low", "high"]


@dataclass(frozen=True)
class ToolStudy:
    """A recorded study. Its methods give the frames of the notebook, in the order in which they should be read.

    Attributes:
        plan: think_s, threshold, waits per profile, the tools that wait, environment and load.
        parameters: with which it was run.
        validation: the shadow pass over validation tasks, in which tools waited for nothing.
        profiles: share of the tools -> arm -> runs.
        vision: arm of the 2 x 2 -> runs.
        files: what was read.
        bootstrap: of all intervals.
    """

    plan: dict[str, Any]
    parameters: dict[str, Any]
    validation: list[TaskRun]
    profiles: dict[str, Arms]
    vision: Arms
    files: tuple[Path, ...]
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP

    def runs(self, profile: str = FULL) -> list[TaskRun]:
        """All runs of a profile, arm by arm."""
        return [run for runs in self.profiles[profile].values() for run in runs]

    # ------------------------------------------------------------------ before a run is spent

    def ceilings(self) -> pd.DataFrame:
        """The most that speculation can save at each share of the tools, from the arm without speculation.

        Returns:
            Index: profile. Columns: tasks, steps, sequential_s, tool_share_pct, ceiling, low, high (speedup of one
            step, with interval over tasks), saving_s.
        """
        rows = {}
        for profile, arms in self.profiles.items():
            steps = flatten_runs(arms[BASELINE])
            most = ceiling(steps, bootstrap=self.bootstrap)
            rows[profile] = {
                "tasks": len(steps.task_ids),
                "steps": len(steps),
                "sequential_s": most.sequential_s,
                "tool_share_pct": most.tool_share.value,
                "ceiling": most.one_step.value,
                "low": most.one_step.low,
                "high": most.one_step.high,
                "saving_s": most.saved_s,
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("profile")

    def scores(self) -> pd.DataFrame:
        """How well each score ranks the first guesses of the validation tasks (`compare_guess_scores`)."""
        guesses = guess_ledger(self.validation)
        return compare_guess_scores(guesses[guesses["rank"] == 0], bootstrap=self.bootstrap)

    def predictors(self) -> pd.DataFrame:
        """The speculator on the test tasks beside predictors that count in the validation tasks."""
        return predictor_baselines(self.validation, self._shadow(FULL), self.bootstrap)

    def gate_fronts(self, profile: str = FULL) -> dict[str, pd.DataFrame]:
        """Saving and waste over the threshold, on the validation tasks and on the test tasks (`gate_front`)."""
        steps = {"validation": self._validation_steps(), "test": self.shadow_steps(profile)}
        return {name: gate_front(part, latency=profile) for name, part in steps.items()}

    def chosen(self, profile: str = FULL) -> pd.DataFrame:
        """The threshold of the study on the test tasks, beside always guessing: rows as of `gate_front`."""
        always = ToolSetting(latency=profile)
        gated = replace(always, threshold=self.plan["threshold"])
        frame = replay_tools(self.shadow_steps(profile), [gated, always])
        saved, wasted = frame["saved_s"].iloc[1], frame["wasted_s"].iloc[1]
        frame["saving_pct"] = 100.0 * frame["saved_s"] / saved if saved else np.nan
        frame["waste_pct"] = 100.0 * frame["wasted_s"] / wasted if wasted else np.nan
        return frame.assign(label=["gated", "always"])[GATE_COLUMNS]

    # ------------------------------------------------------------------ what the arms did

    def audit(self, profile: str = FULL) -> pd.DataFrame:
        """The conditions of the arms (`audit_arms`)."""
        return audit_arms(self.profiles[profile])

    def findings(self) -> list[str]:
        """What speaks against comparing the arms, a sentence each."""
        return [f"{name}: {finding}" for name, arms in self.profiles.items() for finding in _unexpected(arms)]

    def results(self) -> pd.DataFrame:
        """Every arm against the one without speculation, at each share of the tools.

        Returns:
            Columns: profile, arm, lossless, n, speedup, low, high (paired over tasks), p_seconds, saved_s, ceiling_pct
            (share of the ceiling's saving), allowed_pct (share of what the arm's own hits allow), hits, calls,
            same_messages, same_answers, official_pp (difference in accuracy), wasted_s (tool seconds without use).
        """
        rows = []
        for profile, arms in self.profiles.items():
            base = {run.task_id: run.seconds for run in arms[BASELINE]}
            most_s = ceiling(flatten_runs(arms[BASELINE]), bootstrap=Bootstrap(draws=2)).saved_s
            for arm, row in compare_all(arms, BASELINE, self.bootstrap).iterrows():
                saved_s = sum(base[run.task_id] - run.seconds for run in arms[arm] if run.task_id in base)
                allowed_s = allowed_by_hits_s(arms[arm])
                rows.append(
                    {"profile": profile, "arm": arm, "lossless": arms[arm][0].settings["lossless"]}
                    | row[["n", "speedup", "low", "high", "p_seconds"]].to_dict()
                    | {
                        "saved_s": saved_s,
                        "ceiling_pct": 100.0 * saved_s / most_s if most_s else np.nan,
                        "allowed_pct": 100.0 * saved_s / allowed_s if allowed_s else np.nan,
                    }
                    | row[["hits", "calls", "same_messages", "same_answers", "official_pp"]].to_dict()
                    | {"wasted_s": float(guess_ledger(arms[arm])["wasted_s"].sum())}
                )
        return pd.DataFrame(rows)

    def losses(self, arms: Sequence[str], profile: str = FULL) -> pd.DataFrame:
        """Where the ceiling of some arms went, in percent of it. Index: arm. Columns: those of `ceiling_losses`."""
        recorded = self.profiles[profile]
        base = recorded[BASELINE]
        rows = {arm: ceiling_losses(recorded[arm], base)["pct"] for arm in arms if arm in recorded}
        return pd.DataFrame(rows).T.rename_axis("arm").rename_axis(columns=None)

    def delays(self, profile: str = FULL) -> pd.DataFrame:
        """By how much the calls of the actor come later than its pace allows, in ms.

        Returns:
            Index: arm. Columns: steps, median_ms, p95_ms (from the pace to the begin of the call), p95_more_ms (than
            without speculation).
        """
        pace = self.parameters["tokens_per_s"]
        rows = {}
        for arm, runs in self.profiles[profile].items():
            late = [
                1e3 * (step.calls[0].start_s - step.actor_start_s - step.actor_tokens / pace)
                for run in runs
                for step in run.steps
                if step.calls
            ]
            rows[arm] = {"steps": len(late), "median_ms": np.median(late), "p95_ms": np.quantile(late, 0.95)}
        frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("arm")
        return frame.assign(p95_more_ms=frame["p95_ms"] - frame.loc[BASELINE, "p95_ms"])

    def ledger(self, arm: str, by: str = "tool", profile: str = FULL) -> pd.DataFrame:
        """What the guesses of an arm were worth (`ledger_by`)."""
        return ledger_by(guess_ledger(self.profiles[profile][arm]), by)

    def spans(self, arm: str, profile: str = FULL, task: str = "") -> pd.DataFrame:
        """When everybody was busy in a task (`timeline`); by default the one with most guesses."""
        runs = {run.task_id: run for run in self.profiles[profile][arm]}
        most = max(runs.values(), key=lambda run: sum(len(step.guesses) for step in run.steps))
        return timeline(runs.get(task, most))

    # ------------------------------------------------------------------ what was not run

    def shadow_steps(self, profile: str = FULL) -> ToolSteps:
        """The shadow pass of a profile, with the tool times of every profile as latencies by their names."""
        return flatten_runs(self._shadow(profile), self._latencies(Waits(**self.plan["waits"][profile])))

    def shares(self) -> pd.DataFrame:
        """Speedup over the share of the tools: replayed from the shadow pass, and measured (`over_tool_share`)."""
        settings = {
            "exact, replayed": ToolSetting(),
            "gated, replayed": ToolSetting(threshold=self.plan["threshold"]),
            "original, replayed": ToolSetting(policy="original"),
        }
        table = over_tool_share(self.shadow_steps(), settings)
        ceilings, results = self.ceilings(), self.results()
        measured = results[results["arm"].isin(["exact", "original"])].merge(
            ceilings[["tool_share_pct", "ceiling"]], left_on="profile", right_index=True
        )
        measured = measured.assign(setting=measured["arm"] + ", measured", tool_scale=np.nan)
        return pd.concat([table, measured[table.columns]], ignore_index=True)

    def fidelity(self, profile: str = FULL) -> pd.DataFrame:
        """The shadow pass replayed as the other arms, beside what they did (`replayed_arms`)."""
        arms = self.profiles[profile]
        served = {a: r for a, r in arms.items() if a not in (BASELINE, SHADOW) and not a.startswith("weak")}
        return replayed_arms(arms[SHADOW], served)

    def two_by_two(self) -> pd.DataFrame:
        """Both speculations together, on tasks whose picture has to be looked at.

        Returns:
            Index: speculation of tool calls, gate inside vision_analyze. Columns: n, mean_s (of a task), vision_s (of a
            call of vision_analyze), speedup, low, high (against neither, paired over tasks), same_answers.

        Raises:
            DataError: the study has no such tasks.
        """
        if not self.vision:
            raise DataError("The study has no tasks with pictures; run it with scenes of at least 1.")
        rows = {}
        base = {run.task_id: run for run in self.vision["baseline_without_gate"]}
        for arm, runs in self.vision.items():
            policy, _, gate = arm.partition("_")
            made = [c for run in runs for step in run.steps for c in step.calls if c.name == "vision_analyze"]
            paired = [(base[run.task_id], run) for run in runs if run.task_id in base]
            before_s, after_s = ([run.seconds for run in column] for column in zip(*paired, strict=True))
            faster = speedup(before_s, after_s, bootstrap=self.bootstrap)
            rows[policy, gate.replace("_", " ")] = {
                "n": len(paired),
                "mean_s": float(np.mean(after_s)),
                "vision_s": float(np.mean([call.tool_s for call in made])) if made else np.nan,
                "speedup": faster.value,
                "low": faster.low,
                "high": faster.high,
                "same_answers": sum(run.answer == before.answer for before, run in paired),
            }
        frame = pd.DataFrame.from_dict(rows, orient="index")
        return frame.rename_axis(["speculation", "inside vision_analyze"])

    def _shadow(self, profile: str) -> list[TaskRun]:
        arms = self.profiles.get(profile, {})
        if SHADOW not in arms:
            raise DataError(f"profile {profile}: there is no arm {SHADOW!r}; run the study with science")
        return list(arms[SHADOW])

    def _validation_steps(self) -> ToolSteps:
        return flatten_runs(self.validation, self._latencies(None))

    def _latencies(self, recorded: Waits | None) -> dict[str, Latency]:
        """The tool times of every profile, by its name, for a run that had the waits `recorded`."""
        tools = self.plan["waiting_tools"]
        waits = {name: Waits(**values) for name, values in self.plan["waits"].items()}
        return {name: other_waits(recorded, other, tools) for name, other in waits.items()}


def _unexpected(arms: Arms) -> list[str]:
    """Findings of the audit among the lossless arms. The others may fail more often: that is their result."""
    lossless = {arm: runs for arm, runs in arms.items() if runs[0].settings["lossless"]}
    return audit_findings(lossless)


def allowed_by_hits_s(runs: Sequence[TaskRun]) -> float:
    """Seconds that the hits of these runs would save, had every one of them been there at once."""
    steps = flatten_runs(runs)
    guessed = np.zeros(steps.names.shape, bool)
    for row, step in enumerate(step for run in runs for step in run.steps):
        for place, call in enumerate(step.calls):
            guessed[row, place] = call.source != "executed"
    return float(hideable_s(steps, steps.latencies[RECORDED][0], guessed=guessed).sum())


def read_tool_study(path: str | Path, bootstrap: Bootstrap = DEFAULT_BOOTSTRAP) -> ToolStudy:
    """The study in a folder, or in the file that `speceyes recorded pack-tools` writes.

    Raises:
        DataError: there is none, it has not got as far as its first arm, or a file is damaged.
    """
    place = resolve(path)
    with opened(place) as folder:
        plans = [folder / PLAN, *folder.glob(f"*/{PLAN}")]
        plan = next((file for file in plans if file.is_file()), None)
        if plan is None:
            raise DataError(
                f"{shown(place)}: no study of tool speculation is here, or it has not run its validation tasks; run "
                "it with make tools"
            )
        files = (place,) if place.is_file() else tuple(sorted(place.glob(f"*/{RUNS}")))
        return _read(plan.parent, files, bootstrap)


def _read(folder: Path, files: tuple[Path, ...], bootstrap: Bootstrap) -> ToolStudy:
    parts = {file.parent.name: _by_arm(read_runs(file)) for file in sorted(folder.glob(f"*/{RUNS}"))}
    documents = {}
    for name in (PLAN, PARAMETERS):
        try:
            documents[name] = json.loads((folder / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{shown(folder / name)}: cannot be read ({error}); run the study again"
            ) from None
    validation = parts.pop(VALIDATION, {}).get(SHADOW, [])
    vision = parts.pop(VISION, {})
    order = [name for name in documents[PLAN]["waits"] if name in parts]
    order.sort(key=lambda name: documents[PLAN]["waits"][name]["mean_s"])
    profiles = {name: parts[name] for name in order}
    if not profiles or not all(BASELINE in arms for arms in profiles.values()):
        raise DataError("the study has not run an arm without speculation yet; run it again to go on")
    return ToolStudy(documents[PLAN], documents[PARAMETERS], validation, profiles, vision, files, bootstrap)


def _by_arm(runs: list[TaskRun]) -> Arms:
    arms: dict[str, list[TaskRun]] = {}
    for run in runs:
        arms.setdefault(run.arm, []).append(run)
    return arms
