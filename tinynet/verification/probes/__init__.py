"""The probes: what a target is tried on. Each takes the trial and adds to its findings and its coverage."""
