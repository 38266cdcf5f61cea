"""`vitriad finetune`: a classifier from a checkpoint, or from fresh weights, and images of each class."""

from __future__ import annotations

from argparse import Namespace

from vitriad.training.command import run_training


def run(arguments: Namespace) -> int:
    """Trains, or says what training would take; 3 if some images could not be used."""
    return run_training(arguments, "classification")
