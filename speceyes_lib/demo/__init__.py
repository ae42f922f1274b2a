"""The embedded benchmark, its recorded run, and a server over the embedded models."""
