"""Checkpoint dialects to canonical names and back."""
