"""LoRA of peft on models of vit_torch."""

import numpy as np
import torch
import transformers
from cases import batch, main, make_model
from peft import LoraConfig, PeftModel, get_peft_model

import vit_torch
from vit_core import CheckpointError

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"], "modules_to_save": ["classifier"]}


def trained(folder, model):
    """A model with an adapter, after a few steps; the base is saved in folder/base, the adapter in folder/adapter."""
    model.save_pretrained(folder / "base")
    torch.manual_seed(1)
    adapted = get_peft_model(model, LoraConfig(**LORA)).train()
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=0.05)
    losses = []
    for _ in range(6):
        loss = adapted(**batch()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    adapted.eval().save_pretrained(folder / "adapter")
    return adapted


def logits(model) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(pixel_values=batch()["pixel_values"]).logits.numpy()


def lora(folder):
    """Trained, saved, loaded onto the base again, merged, and the merged model saved for everybody."""
    adapted = trained(folder, make_model())
    expected = logits(adapted)
    base = vit_torch.ViTForImageClassification.from_pretrained(folder / "base")
    assert np.abs(logits(base) - expected).max() > 0.1
    again = PeftModel.from_pretrained(base, folder / "adapter")
    np.testing.assert_allclose(logits(again), expected, atol=1e-5)
    again.merge_and_unload().save_pretrained(folder / "merged")
    for cls in (vit_torch.ViTForImageClassification, transformers.ViTForImageClassification):
        np.testing.assert_allclose(logits(cls.from_pretrained(folder / "merged")), expected, atol=1e-5)


def recomputed_layers(folder):
    """Gradients reach adapters through recomputed layers, also by torch's reentrant way."""
    model = make_model()
    model.gradient_checkpointing_enable({"use_reentrant": True})
    trained(folder, model)


def an_adapter_is_no_model(folder):
    trained(folder, make_model())
    try:
        vit_torch.ViTForImageClassification.from_pretrained(folder / "adapter")
    except CheckpointError as error:
        return str(error)


if __name__ == "__main__":
    main(globals())
