"""The outcome of any gate setting, computed from one recorded pass."""

from ..exports import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "early_exit": ("saved_share",),
        "replay_data": ("NotRecorded", "ReplayData", "load"),
        "settings": ("Setting", "grid"),
        "outcomes": ("curve", "decisions", "ledger", "replay"),
        "payoff": ("break_even", "phase_seconds"),
        "tool_steps": ("flatten_runs", "other_waits"),
        "tool_playing": ("ToolSetting", "tool_grid"),
        "tool_speculation": ("ceiling", "over_tool_share", "replay_task_times", "replay_tools"),
        "fleet": ("Fleet", "agent_workload", "funnel_workload", "simulate_fleet"),
    },
)
