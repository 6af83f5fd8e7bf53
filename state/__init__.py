"""What survives a restart: rows, generations, index versions."""
