"""Who brings the jobs and waits for their futures."""
