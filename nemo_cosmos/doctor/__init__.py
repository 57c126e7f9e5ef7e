"""The checks behind `nemo-cosmos doctor`: this machine, what it computes, and an experiment on it."""
