"""Tool calls made in advance: a speculator guesses the call that the actor is about to make, and it is carried out."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "gate": ("Gate", "least_probability"),
        "matching": ("STRATEGIES", "strategy_of"),
        "models": ("PacedPolicy", "ScriptedPolicy"),
        "episode": ("Assignment", "Episode"),
        "served": ("served_pair", "settings_of"),
        "settings": ("BASELINE", "SpeculationSettings", "comparison_arms"),
        "local": ("LocalPolicy",),
        "replayed": ("replayed_pair",),
        "run": ("ToolSetup", "run_batch", "run_task"),
        "records": ("Guess", "MadeCall", "Step", "TaskRun", "append_run", "read_runs"),
    },
)
