"""Synthetic 3-D scenes with exact geometry: textured boxes and planes, pinhole cameras, a ray caster in NumPy."""
