"""Trains a vit_torch classifier by a recipe in a loop of accelerate, on as many processes as it was launched in.

    pip install -e '.[torch]' accelerate
    accelerate launch docs/examples/finetune_with_accelerate.py --output out

Groups, learning rates and targets are those of `vit_torch.training.TrainStep`, and so are the losses.
"""

import argparse
import json
from pathlib import Path

import torch
from accelerate import Accelerator
from stripes import BATCH, CONFIG, IMAGES, RECIPE, SCHEDULE

from vit_core.parameters import draw
from vit_torch import ViTForImageClassification
from vit_torch.training import adamw


def main() -> None:
    """Trains, saves, and prints the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    accelerator = Accelerator(split_batches=True)  # the batch of the recipe is shared by the processes
    model = ViTForImageClassification.from_tensors(CONFIG, draw(CONFIG, "ViTForImageClassification", seed=0)).train()
    optimizer = adamw(model, RECIPE)  # groups of decay and of layers, each with its "scale" of the rate
    data = torch.utils.data.DataLoader(IMAGES, batch_size=BATCH)
    model, optimizer, data = accelerator.prepare(model, optimizer, data)

    losses = []
    for step, (pixels, targets) in enumerate(data):
        for group in optimizer.param_groups:
            group["lr"] = SCHEDULE(step) * group["scale"]
        loss = torch.nn.functional.cross_entropy(model(pixels).logits, targets)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), RECIPE.clip)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(accelerator.reduce(loss.detach(), "mean").item())

    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        accelerator.unwrap_model(model).save_pretrained(arguments.output)  # loads in every framework
        print(json.dumps(losses))


if __name__ == "__main__":
    main()
