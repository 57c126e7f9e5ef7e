"""Which layout of a run fits and how fast it is, by calculation: FLOPs, memory, seconds, plans."""
