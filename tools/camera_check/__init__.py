"""What ``tools/camera_checks.py`` measures: one file a figure."""
