"""Each guard is taken out once, to see that the tests named for it turn red."""
