"""What a run is: records, evidence, stage folders, their manifests, and the one reader of a finished run."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "reading": ("read_stage", "to_frame"),
        "recorded_run": ("RecordedRun", "list_runs", "open"),
        "records": ("AgentRecord", "DraftRecord", "JudgedRecord"),
        "stage": ("finish_stage",),
    },
)
