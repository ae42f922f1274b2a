"""The list of all figures. Adding one is a function in `plots/` and a line here.

The function's name is public in `plots` then, an `Album` saves the figure, the run's page shows it with its caption,
and `speceyes figures` lists it in figures/README.md.
"""

from __future__ import annotations

from ..plugins import contributed
from .listed_figure import ListedFigure

# name, as of its files -> the figure
FIGURES = {
    name: ListedFigure(stage, draw, caption)
    for name, stage, draw, caption in (
        ("threshold_choice", "04_threshold", "gate.accuracy_over_threshold",
         "the threshold that the rule picks on the validation run"),
        ("confidence_distribution", "04_confidence", "confidence.confidence_density",
         "the scores of right and of wrong drafts"),
        ("risk_coverage", "04_confidence", "confidence.risk_coverage",
         "wrong ones among the most confident drafts, over the share that is kept"),
        ("rolling_accuracy", "04_confidence", "confidence.rolling_by_rank",
         "accuracy of drafts among their neighbours in confidence"),
        ("reliability", "04_confidence", "confidence.reliability",
         "what scores that are probabilities promise, and what comes true"),
        ("ties", "04_confidence", "confidence.tie_geometry",
         "what separability cannot see: a runner-up that is nearly as probable"),
        ("router_and_gate", "04_certified_thresholds", "gate.quadrants",
         "how many samples router and gate send where, and who is right there"),
        ("accuracy_over_threshold", "04_certified_thresholds", "gate.accuracy_over_threshold",
         "accuracy and accepted share of the funnel over its threshold"),
        ("front", "04_certified_thresholds", "gate.front",
         "accuracy against speedup, of the run at every threshold and as reported"),
        ("certified", "04_certified_thresholds", "gate.certified_points",
         "rules that certify a threshold: risk, coverage, accuracy and speedup on held-out halves"),
        ("break_even", "04_costs", "cost.break_even", "when the gate pays"),
        ("time_ledger", "04_costs", "cost.time_ledger", "from the seconds of the agent alone to those with the gate"),
        ("fleets", "04_costs", "cost.fleets", "how to divide replicas, and the latency over the number of users"),
        ("method", "05_figures", "method.method_diagram",
         "the serial agent and the funnel, with the shares of the run"),
        ("accuracy_speedup", "05_figures", "gate.accuracy_speedup", "every method, accuracy against speedup"),
        ("ablation_threshold", "05_figures", "ablations.threshold_ablation",
         "accuracy (lines) and speedup (bars) over the threshold"),
        ("ablation_topk", "05_figures", "ablations.topk_ablation",
         "accuracy and speedup over K, at the same threshold and at the same coverage"),
        ("ablation_score", "05_figures", "ablations.score_ablation",
         "accuracy and speedup with each of the four scores"),
        ("ablation_batch_size", "05_figures", "ablations.batch_size_ablation",
         "speedup over the batch size, with the gain per added query"),
        ("ablation_router", "05_figures", "ablations.router_ablation", "which router answers Phase I"),
        ("throughput", "05_figures", "cost.throughput", "samples per second over the agents at work at once"),
        ("phase_times", "05_figures", "cost.phase_times", "where the time goes"),
        ("first_look_by_size", "05_figures", "cost.first_look_by_size", "what zooming is worth"),
        ("correction_waterfall", "03_judging", "judging.correction_waterfall",
         "what each correction moves between two scoring protocols"),
        ("position_bias", "study_position_bias", "position_bias.accuracy_by_place",
         "accuracy of the drafts by the order of their options"),
        ("tool_timeline", "study_tool_speculation", "timeline.task_timeline",
         "one task: actor, speculator and tools over time"),
        ("tool_share", "study_tool_speculation", "timeline.speedup_by_tool_share",
         "speedup over the share of the tools, below the ceiling"),
        ("guess_gate", "study_tool_speculation", "timeline.gate_saving_and_waste",
         "what gating the guesses keeps of the saving, and of the waste"),
        ("replay_fidelity", "study_replay_fidelity", "fidelity.replay_fidelity",
         "predicted beside measured speedup and accuracy"),
        ("training_metrics", "study_deepeyes_recipe", "training.training_metrics",
         "metrics over the steps of training, with seeds and early warnings"),
        ("parts_of_score", "study_deepeyes_recipe", "training.parts_of_score",
         "what the mean score of each step consists of"),
        ("right_by_tool", "study_deepeyes_recipe", "training.right_by_tool",
         "answers that are right, with the tool and without it"),
        ("tool_phases", "study_deepeyes_recipe", "training.tool_phases",
         "tool use against what the tool goes with, step after step"),
        ("signal_by_part", "study_deepeyes_recipe", "training.signal_by_part",
         "which part of the reward separates the trajectories of a group"),
        ("advantages_by_prompt", "study_deepeyes_recipe", "training.advantages_by_prompt",
         "the advantage of each trajectory, prompt by prompt"),
        ("speculation_by_agent", "study_deepeyes_recipe", "recipe_speculation.speculation_by_agent",
         "trained agents in the funnel: tokens, speedup and accuracy over the threshold"),
        ("possible_accuracy", "read_training_run", "training.possible_accuracy",
         "the accuracies that mean scores allow"),
    )
}  # fmt: skip
FIGURES |= contributed("FIGURES", FIGURES)
# the stages whose figures are redrawn and published, in the order they run
PUBLISHED = tuple(dict.fromkeys(f.stage for f in FIGURES.values() if f.stage.startswith(("04_", "05_"))))
