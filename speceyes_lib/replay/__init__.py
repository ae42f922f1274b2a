"""The outcome of any gate setting, computed from one recorded pass."""
