"""Is this answer right, who says so, under which protocol: rules, a judging model, and the stage that stores it."""

from .rules import PROTOCOLS, Judgement, Protocol, judge, named_option, words
from .stage import JudgedRecord, judge_record, preview_verdicts, run_judging_stage

__all__ = [
    "PROTOCOLS",
    "JudgedRecord",
    "Judgement",
    "Protocol",
    "judge",
    "judge_record",
    "named_option",
    "preview_verdicts",
    "run_judging_stage",
    "words",
]
