"""Generations and index versions on their way out."""
