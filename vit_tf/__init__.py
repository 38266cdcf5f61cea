"""ViT and ViTMAE in TensorFlow / Keras 3."""
