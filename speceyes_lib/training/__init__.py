"""How the weights of the embedded models are made."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "dialogue": ("example_dialogue",),
        "evaluation": ("held_out_samples",),
        "plots": ("three_views", "training_curves"),
        "pretraining": ("run_training",),
        "prompt_pictures": ("pictures_of_prompts",),
        "recipe_runs": ("runs_of_recipe",),
    },
)
