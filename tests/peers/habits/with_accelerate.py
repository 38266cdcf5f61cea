"""The end of accelerate's examples, over models of vit_torch."""

import numpy as np
import torch
import transformers
from accelerate import Accelerator, debug_launcher
from accelerate.utils import set_seed
from cases import Images, batch, check_state, main, make_model

import vit_torch


def train(folder):
    """Trains and saves as the examples of accelerate do; every process runs this."""
    set_seed(0)
    accelerator = Accelerator(cpu=True)
    model = make_model()
    data = torch.utils.data.DataLoader(Images(), batch_size=8)
    model, optimizer, data = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=2e-3), data)
    for inputs in data:
        accelerator.backward(model(**inputs).loss)
        optimizer.step()
        optimizer.zero_grad()
    accelerator.wait_for_everyone()
    unwrapped = accelerator.unwrap_model(model)
    unwrapped.save_pretrained(
        folder / ("saved" if accelerator.is_main_process else "other"),
        is_main_process=accelerator.is_main_process,
        save_function=accelerator.save,
        state_dict=accelerator.get_state_dict(model),
    )
    accelerator.wait_for_everyone()
    return unwrapped


def check_saved(folder):
    assert not (folder / "other").exists()
    ours = vit_torch.ViTForImageClassification.from_pretrained(folder / "saved")
    theirs = transformers.ViTForImageClassification.from_pretrained(folder / "saved")
    pixels = batch()["pixel_values"]
    with torch.no_grad():
        np.testing.assert_allclose(ours(pixels).logits, theirs(pixels).logits, atol=1e-5)
    return ours


def the_end_of_an_example(folder):
    model = train(folder)
    check_state(check_saved(folder).state_dict(), model.state_dict())


def two_processes(folder):
    debug_launcher(train, (folder,), num_processes=2)
    check_saved(folder)


if __name__ == "__main__":
    main(globals())
