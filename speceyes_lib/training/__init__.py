"""How the weights of the embedded models are made."""
