"""Event time and session windows."""
