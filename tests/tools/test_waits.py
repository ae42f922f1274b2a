from __future__ import annotations

import statistics

import pytest

from speceyes_lib.errors import UserError
from speceyes_lib.tools.declared import Toolbox, Workspace
from speceyes_lib.tools.search import search_tools
from speceyes_lib.tools.waits import PROFILES, WAITS, waiting, waits_of


@pytest.mark.parametrize(("profile", "share"), PROFILES.items())
def test_waits_take_the_profiles_share_of_the_time(profile, share):
    waits = waits_of(profile, think_s=0.2, waiting_share=0.5)
    seconds = [waits.seconds(f"call {i}") for i in range(4000)]
    per_step = 0.5 * statistics.fmean(seconds)
    assert per_step / (per_step + 0.2) == pytest.approx(share, abs=0.01)
    assert seconds[:5] == [waits.seconds(f"call {i}") for i in range(5)]


def test_a_call_waits_as_long_every_time_and_only_with_a_table(tmp_path):
    box = Toolbox(search_tools(embedded=True))
    call, other = (box.call("web_search", {"query": q}) for q in ("oil", "gas"))
    workspace = Workspace(tmp_path, {WAITS: waits_of("research", 0.2, 0.5)})
    assert waiting(call, workspace) == waiting(box.call("web_search", '{"query": " oil "}'), workspace) > 0
    assert waiting(call, workspace) != waiting(other, workspace)
    assert waiting(call, Workspace(tmp_path)) == 0
    with pytest.raises(UserError, match="did you mean"):
        waits_of("scince", 0.2, 0.5)
