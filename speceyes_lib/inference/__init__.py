"""Drafts and the funnel, run over samples."""
