"""The page: what thousands of jobs are doing, in a browser, read from the database by whoever starts it."""
