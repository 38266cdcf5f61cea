"""The framework-neutral core: configurations, image preprocessing, outputs, positions, masking, files."""
