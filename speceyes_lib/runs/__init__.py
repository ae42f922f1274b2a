"""What a run is: records, evidence, stage folders, their manifests, and the one reader of a finished run."""
