"""Trains a vit_torch classifier by a recipe with the Trainer of Lightning.

    pip install -e '.[torch]' lightning
    python docs/examples/finetune_with_lightning.py --output out

Groups, learning rates and targets are those of `vit_torch.training.TrainStep`, and so are the losses.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import lightning
import torch
from stripes import BATCH, CONFIG, IMAGES, RECIPE, SCHEDULE, STEPS

from vit_core.parameters import draw
from vit_torch import ViTForImageClassification
from vit_torch.training import adamw


class Classifier(lightning.LightningModule):
    """A model, the loss of a batch, and its optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.model = ViTForImageClassification.from_tensors(CONFIG, draw(CONFIG, "ViTForImageClassification", seed=0))
        self.model.train()  # Lightning leaves modules in the mode that they come in
        self.losses: list[float] = []

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        pixels, targets = batch
        loss = torch.nn.functional.cross_entropy(self.model(pixels).logits, targets)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = adamw(self.model, RECIPE)  # groups of decay and of layers, each with its "scale" of the rate
        for group in optimizer.param_groups:
            group["lr"] = group["scale"]
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: SCHEDULE(min(step, STEPS - 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rates, "interval": "step"}}


def main() -> None:
    """Trains, saves, and prints the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    module = Classifier()
    trainer = lightning.Trainer(
        max_epochs=1,
        gradient_clip_val=RECIPE.clip,
        default_root_dir=arguments.output,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, torch.utils.data.DataLoader(IMAGES, batch_size=BATCH))
    module.model.save_pretrained(arguments.output)  # loads in every framework
    print(json.dumps(module.losses))


if __name__ == "__main__":
    main()
