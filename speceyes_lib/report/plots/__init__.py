"""One file per group of figures: a frame goes in, a matplotlib `Figure` comes out."""
