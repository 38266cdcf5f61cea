"""Exported programs: written, measured against their model, and certified."""
