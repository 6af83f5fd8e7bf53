"""Prequential evaluation over the daemon's own pipeline."""
