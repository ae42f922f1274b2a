"""The list of all figures. Adding one is a function in `plots/` and a line here.

The function's name is public in `plots` then, an `Album` saves the figure with its caption, which is a sentence or two
for those who do not see the picture as well, the run's page shows both in this order, and `speceyes figures` lists it
in figures/README.md.
"""

from __future__ import annotations

from ..plugins import contributed
from .listed_figure import ListedFigure

# name, as of its files -> the figure, in the order in which a report tells its story
FIGURES = {
    name: ListedFigure(stage, draw, caption)
    for name, stage, draw, caption in (
        ("method", "05_figures", "method.method_diagram",
         ("The agent alone takes one step after another. SpecEyes lets answers that the gate trusts leave early; "
          "the shares are those of the run.")),
        ("accuracy_speedup", "05_figures", "gate.accuracy_speedup",
         ("Accuracy against speedup over the agent alone: up is more accurate, right is faster. Bars are 95 % "
          "intervals of what was measured.")),
        ("confidence_distribution", "04_confidence", "confidence.confidence_density",
         ("The scores of right and of wrong drafts. The less the two overlap, the better a threshold can divide "
          "them.")),
        ("risk_coverage", "04_confidence", "confidence.risk_coverage",
         ("Wrong ones among the most confident drafts, over the share that is kept. A lower curve is a better "
          "score.")),
        ("rolling_accuracy", "04_confidence", "confidence.rolling_by_rank",
         "Accuracy of drafts among their neighbours in confidence. A score that knows rises to the right."),
        ("reliability", "04_confidence", "confidence.reliability",
         "What scores that are probabilities promise, and what comes true. On the diagonal the promise is kept."),
        ("ties", "04_confidence", "confidence.tie_geometry",
         "What separability cannot see: a runner-up that is nearly as probable as the token itself."),
        ("threshold_choice", "04_threshold", "gate.accuracy_over_threshold",
         ("Accuracy and accepted share of the funnel over its threshold, on the validation run. The line marks the "
          "threshold that the rule picks.")),
        ("router_and_gate", "04_certified_thresholds", "gate.quadrants",
         "How many samples router and gate send where, and how often draft and agent are right there."),
        ("accuracy_over_threshold", "04_certified_thresholds", "gate.accuracy_over_threshold",
         ("Accuracy and accepted share of the funnel over its threshold. The threshold in use was chosen on the "
          "validation run.")),
        ("front", "04_certified_thresholds", "gate.front",
         "Accuracy less the agent's against speedup, of the run at every threshold and as reported."),
        ("certified", "04_certified_thresholds", "gate.certified_points",
         ("Rules that certify a threshold: risk, accepted share, accuracy and speedup on held-out halves. A cross "
          "marks the target of a rule.")),
        ("ablation_threshold", "05_figures", "ablations.threshold_ablation",
         "Accuracy and, below it, speedup over the gate's threshold, as reported (solid) and of this run (dashed)."),
        ("ablation_topk", "05_figures", "ablations.topk_ablation",
         "Accuracy and, below it, speedup over K, at the same threshold and at the same coverage."),
        ("ablation_score", "05_figures", "ablations.score_ablation",
         ("Accuracy and, below it, speedup with each of the four scores, at the same threshold and at the same "
          "coverage.")),
        ("ablation_batch_size", "05_figures", "ablations.batch_size_ablation",
         "Speedup over the batch size, with the gain per added query in the small panels."),
        ("ablation_router", "05_figures", "ablations.router_ablation",
         "Accuracy and speedup by the router that answers Phase I."),
        ("break_even", "04_costs", "cost.break_even",
         ("When the gate saves time: accepted share against the price of router and drafts. In the shaded area it "
          "costs more than it saves.")),
        ("time_ledger", "04_costs", "cost.time_ledger",
         "From the milliseconds of the agent alone to those with the gate, and where they go by decision."),
        ("phase_times", "05_figures", "cost.phase_times",
         "Where the time of a sample goes, by method."),
        ("throughput", "05_figures", "cost.throughput",
         ("Samples per second over the number of agents at work at once. Lines are predicted from the instrumented "
          "pass, points were measured.")),
        ("fleets", "04_costs", "cost.fleets",
         "How to divide replicas between the two models, and the latency over the number of users."),
        ("served_load", "bench_planner", "cost.served_load",
         ("The funnel behind a server: requests per second and latency over the number of users. Lines are predicted "
          "by the planner, points were measured.")),
        ("first_look_by_size", "05_figures", "cost.first_look_by_size",
         "What zooming is worth: accuracy of the agent with its tool and without it, over the size of the target."),
        ("correction_waterfall", "03_judging", "judging.correction_waterfall",
         "What each correction moves between two scoring protocols."),
        ("position_bias", "study_position_bias", "position_bias.accuracy_by_place",
         "Accuracy of the drafts by the order of their options."),
        ("early_exit", "study_layer_gates", "layers.early_exit",
         ("The layer at which drafts settle, and what leaving there keeps of their accuracy. The star is the ceiling: "
          "no answer changes.")),
        ("tool_timeline", "study_tool_speculation", "timeline.task_timeline",
         "One task: actor, speculator and tools over time."),
        ("tool_share", "study_tool_speculation", "timeline.speedup_by_tool_share",
         "Speedup over the share of the tools, below the ceiling."),
        ("guess_gate", "study_tool_speculation", "timeline.gate_saving_and_waste",
         "What gating the guesses keeps of the saving, and of the waste."),
        ("replay_fidelity", "study_replay_fidelity", "fidelity.replay_fidelity",
         "Predicted beside measured speedup and accuracy. On the diagonal replay is right."),
        ("training_metrics", "study_deepeyes_recipe", "training.training_metrics",
         "Metrics over the steps of training, with seeds and early warnings."),
        ("parts_of_score", "study_deepeyes_recipe", "training.parts_of_score",
         "What the mean score of each step consists of."),
        ("right_by_tool", "study_deepeyes_recipe", "training.right_by_tool",
         "Answers that are right, with the tool and without it."),
        ("tool_phases", "study_deepeyes_recipe", "training.tool_phases",
         "Tool use against what the tool goes with, step after step."),
        ("signal_by_part", "study_deepeyes_recipe", "training.signal_by_part",
         "Which part of the reward separates the trajectories of a group."),
        ("advantages_by_prompt", "study_deepeyes_recipe", "training.advantages_by_prompt",
         "The advantage of each trajectory, prompt by prompt."),
        ("speculation_by_agent", "study_deepeyes_recipe", "recipe_speculation.speculation_by_agent",
         "Trained agents in the funnel: tokens, speedup and accuracy over the threshold."),
        ("possible_accuracy", "read_training_run", "training.possible_accuracy",
         "The accuracies that mean scores allow."),
    )
}  # fmt: skip
FIGURES |= contributed("FIGURES", FIGURES)
# the stages whose figures are redrawn and published, in the order they run
PUBLISHED = tuple(sorted({f.stage for f in FIGURES.values() if f.stage.startswith(("04_", "05_"))}))
