"""Files of other programs, at the edge: read into finished run folders, written from them.

`speceyes` reads and writes the original's result files; `deepeyes`, `lmms_eval` and `vlmevalkit` read theirs. Each
reader turns files into `Part`s (`parts`), which `parts.write` stores as stages with manifests, so that the later
notebooks and the explorers see a run like any other. What a file does not say is absent, never filled in; a line
that cannot be read is a `Problem` with file and line, and the rest is kept.

    python -m speceyes_lib.interchange import speceyes eval_results_deepeyes --run theirs --data-root data/benchmarks
    python -m speceyes_lib.interchange export demo exported/
"""
