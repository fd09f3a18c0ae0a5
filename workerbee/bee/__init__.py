"""Who runs the jobs: a supervisor, its runners, and what they say to each other. ``python -m workerbee.bee``."""
