"""The tools of agents: calls of the zoom, and programs in a sandbox."""
