"""Is this answer right, who says so, under which protocol: rules, a judging model, and the stage that stores it."""

from .llm import JudgingModel, judge_messages, open_judge, read_reply
from .rules import PROTOCOLS, Judgement, Protocol, judge, named_option, words
from .stage import DIFFICULTY_FILE, JudgedRecord, judge_record, preview_verdicts, run_judging_stage

__all__ = [
    "DIFFICULTY_FILE",
    "PROTOCOLS",
    "JudgedRecord",
    "Judgement",
    "JudgingModel",
    "Protocol",
    "judge",
    "judge_messages",
    "judge_record",
    "named_option",
    "open_judge",
    "preview_verdicts",
    "read_reply",
    "run_judging_stage",
    "words",
]
