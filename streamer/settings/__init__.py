"""The sections of the configuration: every setting with its default, unit and help text."""
