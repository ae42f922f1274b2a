"""Explorers: see why the gate accepted, and what any other setting would have done.

`state` (frozen views) and `reading` (a run, read only) go into pure view functions (`gating`, `charts`,
`microscope`, `traces`, `stills`); `widgets` shows them in a notebook with the parts of `parts`. No model is loaded.
"""
