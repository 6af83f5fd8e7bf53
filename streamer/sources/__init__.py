"""Where clicks come from."""
