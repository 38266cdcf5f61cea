"""The dialects, as data: one module each."""
