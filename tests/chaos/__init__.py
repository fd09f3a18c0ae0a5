"""Proof by chaos: real bees and clients lose their processes, their connections and their server, and no job.

``python -m tests.chaos --minutes M --seed S`` runs it and prints a verdict. The verdict is drawn from what
the jobs themselves wrote to a file before and after their work, from what clients were told, and from the
tables, read over a connection of its own; never from what the product says of itself.
"""
