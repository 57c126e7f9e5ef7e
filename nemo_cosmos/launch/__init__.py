"""Starts runs on this machine, in a container or on a Slurm cluster, through NeMo-Run's executors."""
