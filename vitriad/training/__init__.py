"""Runs of `vitriad finetune` and `vitriad pretrain`: a recipe, a folder, steps, and what they measure."""
