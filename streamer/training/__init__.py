"""Session tiles applied to the store."""
