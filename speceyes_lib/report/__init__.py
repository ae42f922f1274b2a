"""Numbers for readers: tables, figures, pages. Nothing here computes a statistic or reads a run."""
