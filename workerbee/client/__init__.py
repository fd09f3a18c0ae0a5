"""The client: it stores calls as jobs, and resolves their futures."""
