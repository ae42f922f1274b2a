"""Is an answer right, and who says so: rules, a judging model, people."""
