"""The bee: a supervisor, its runners, and the messages between them. It is started by ``python -m workerbee.bee``."""
