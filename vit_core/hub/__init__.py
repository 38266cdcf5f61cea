"""The hub: downloading, uploading, and the model card."""
