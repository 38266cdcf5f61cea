"""Fine-tunes a vit_torch classifier with the Trainer of transformers: only the import of the model changes.

    pip install -e '.[torch]' transformers accelerate
    python docs/examples/finetune_with_trainer.py --output out

The pictures are coloured stripes made on the spot, so that the script runs anywhere; swap `Stripes` for your data set.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from transformers import Trainer, TrainingArguments

from vit_torch import ViTConfig, ViTForImageClassification, ViTImageProcessor

LABELS = ["horizontal", "vertical", "diagonal"]


class Stripes(torch.utils.data.Dataset):
    """Noisy stripes in one of three directions, as the dictionaries that Trainer collates."""

    def __init__(self, processor: ViTImageProcessor, length: int) -> None:
        self.processor, self.length = processor, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, object]:
        if index >= self.length:
            raise IndexError(index)
        random, label = np.random.default_rng(index), index % len(LABELS)
        row, column = np.mgrid[:32, :32]
        wave = np.sin((row, column, row + column)[label] * random.uniform(0.6, 1.2) + random.uniform(0, 6))
        image = 127 + 80 * wave[..., None] + random.normal(0, 20, (32, 32, 3))
        pixels = self.processor(np.clip(image, 0, 255).astype(np.uint8), return_tensors="np")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": label}


def main() -> None:
    """Trains, saves, and prints the first and the last loss."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(LABELS)),
    )
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    settings = TrainingArguments(
        output_dir=str(arguments.output),
        max_steps=arguments.steps,
        per_device_train_batch_size=16,
        learning_rate=2e-3,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    trainer = Trainer(
        model=ViTForImageClassification(config),
        args=settings,
        train_dataset=Stripes(processor, 960),
        eval_dataset=Stripes(processor, 48),
    )
    trainer.train()
    trainer.evaluate()
    trainer.model.save_pretrained(arguments.output)  # config.json and model.safetensors: loads everywhere
    processor.save_pretrained(arguments.output)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(json.dumps([losses[0], losses[-1]]))


if __name__ == "__main__":
    main()
