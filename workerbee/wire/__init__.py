"""The wire format: functions, calls, results and failures as signed bytes."""
