"""The embedded reproduction: synthetic scenes, tiny models of the real architectures, their training."""
