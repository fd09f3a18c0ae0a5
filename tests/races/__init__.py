"""Two and three actors on one jobset: every order of their steps, and every pair of statements at the same moment."""
