"""ViT and ViTMAE in JAX / Flax."""
