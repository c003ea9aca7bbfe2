"""Decision records, metrics and traces."""
