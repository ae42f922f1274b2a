"""A model that computes each turn once, so that arms can be measured without competing for the processor."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from ..tools.declared import Toolbox, Workspace
from .models import Event, Policy, Token


class RememberedPolicy:
    """The turns of a model that decodes greedily: computed when they are first wanted, and from memory from then on.

    Inside a `PacedPolicy` it stands for a model behind a server: its tokens come at the stated rate, whatever else this
    machine does. Fill the memory first: a turn that has to be computed comes when it is whole.

    Attributes:
        computed: turns that were not in memory.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy, self.computed = policy, 0
        self.name, self.system, self.can_fork = policy.name, policy.system, policy.can_fork
        self._turns: dict[tuple, list[Event]] = {}

    async def stream(
        self, messages: Sequence[dict], toolbox: Toolbox, workspace: Workspace, prefix: Sequence[Token] = ()
    ) -> AsyncIterator[Event]:
        """The events of the turn, at once."""
        key = json.dumps(list(messages)), tuple(toolbox.tools), "".join(token.text for token in prefix)
        if key not in self._turns:
            self.computed += 1
            async with aclosing(self.policy.stream(messages, toolbox, workspace, prefix)) as events:
                self._turns[key] = [event async for event in events]
        for event in self._turns[key]:
            yield event
