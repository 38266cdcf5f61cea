"""Small models of this backend, and what tests ask of it."""

import zlib

import torch
from small_models import DECODER, FIELDS, PATCHES, SIZES, Backend

import vit_torch

__all__ = ["BACKEND", "DECODER", "FIELDS", "PATCHES", "SIZES", "make_config", "make_inputs", "make_model"]


class Torch(Backend):
    name, prefix, package, tensors_word = "torch", "", vit_torch, "pt"
    relu = staticmethod(torch.nn.functional.relu)

    def make_inputs(self, name, batch=2, height=12, width=20):
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        inputs = {"pixel_values": torch.randn(batch, 3, height, width, generator=generator)}
        if "MAE" in name:
            inputs["noise"] = torch.rand(batch, (height // 4) * (width // 4), generator=generator)
        return inputs

    def native(self, array):
        return torch.as_tensor(array)

    def train(self, model, seed, inputs):
        torch.manual_seed(seed)
        try:
            return model.train()(**inputs)
        finally:
            model.eval()

    def gradients(self, model, seed, inputs):
        torch.manual_seed(seed)
        model.zero_grad()
        model.train()(**inputs)[self.main_output(model)].square().sum().backward()
        model.eval()
        return [parameter.grad.numpy() for parameter in model.parameters() if parameter.grad is not None]

    @torch.no_grad()
    def add_one(self, model):
        for parameter in model.parameters():
            parameter.add_(1)

    def seed(self, seed):
        torch.manual_seed(seed)


BACKEND = Torch()
make_config, make_model, make_inputs = BACKEND.make_config, BACKEND.make_model, BACKEND.make_inputs
