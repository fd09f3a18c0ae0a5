"""What travels through the database, and how: functions, calls, results and failures as signed bytes."""
