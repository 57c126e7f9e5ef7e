"""Short clips of many kinds for training a small model: photographs, cut-outs, arms, roads, rooms, patterns in motion.

Lengths in a frame: its height is 2, the middle (0, 0), x to the right, y down. Colours are fp32 in 0..1, channels
first.
"""
