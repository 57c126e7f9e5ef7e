"""Cameras of a clip: poses and intrinsics, the rays that networks are given, pose files, trajectories."""
