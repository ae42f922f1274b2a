"""Result files of other programs, read into runs and written from them."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "importing": ("READERS", "import_files", "import_report"),
        "speceyes_export": ("export",),
        "tables": ("import_table",),
        "training_runs": ("TrainingRuns", "read_training_runs"),
        "verl_logs": ("TrainingLog", "read_training"),
        "spec_tool_call": (
            "original_pairs",
            "original_summary",
            "read_tool_results",
            "tool_run_of",
            "write_tool_results",
        ),
    },
)
