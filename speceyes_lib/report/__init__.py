"""Numbers for readers: tables, figures, one sample in full, and what the stages write. Nothing is computed here."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "album": ("Album",),
        "columns": ("Column", "show"),
        "formatting": ("chance", "interval", "p_value"),
        "outputs": (
            "open_album",
            "training_album",
            "write_confidence_stage",
            "write_figures_stage",
            "write_reported_numbers",
            "write_tables_stage",
            "write_threshold_stage",
        ),
        "paper_table": ("missing_rows", "table1", "table1_latex"),
        "trace_format": ("trace_events", "write_trace"),
        "sample_page": ("SampleView", "sample_view"),
    },
)
