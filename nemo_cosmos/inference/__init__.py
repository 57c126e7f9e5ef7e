"""Generation of videos from trained networks."""
