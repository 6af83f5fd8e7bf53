"""Records that are put back into Kafka: repaired dead letters, and clicks of files."""
