"""Asks a server of the Open Inference Protocol by NVIDIA's client: `triton_client.py HOST:PORT GIVEN.npz FOUND.npz`.

It runs in an environment of its own, which has no vitriad; what it was told is printed as JSON.
"""

import json
import sys

import ml_dtypes
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

MODEL = "digits-vit"


def asked(client, name, array, datatype, is_binary=True, model=MODEL, outputs=("logits",), **options):
    """The outputs of one request, by name."""
    given = triton.InferInput(name, array.shape, datatype)
    given.set_data_from_numpy(array, binary_data=is_binary)
    wanted = [triton.InferRequestedOutput(each, binary_data=is_binary) for each in outputs]
    found = client.infer(model, [given], outputs=wanted, **options)
    return {each: found.as_numpy(each) for each in outputs}


def refusal(client, *args, **options):
    """Status and text of a request that is refused."""
    try:
        asked(client, *args, **options)
    except InferenceServerException as problem:
        return [problem.status(), problem.message()]
    return None


def main(address, given, out):
    client = triton.InferenceServerClient(address, concurrency=4)
    with np.load(given) as arrays:
        pixels, pictures = arrays["pixels"], arrays["pictures"]
        files = np.array([arrays[f"file{i}"].tobytes() for i in range(len(pixels))], object)
    found = {
        "json": asked(client, "pixel_values", pixels, "FP32", is_binary=False)["logits"],
        "binary": asked(client, "pixel_values", pixels, "FP32")["logits"],
        "fp16": asked(client, "pixel_values", pixels.astype(np.float16), "FP16")["logits"],
        "bf16": asked(client, "pixel_values", pixels.astype(ml_dtypes.bfloat16), "BF16")["logits"],
        "uint8": asked(client, "images", pictures, "UINT8")["logits"],
        "uint8_json": asked(client, "images", pictures, "UINT8", is_binary=False)["logits"],
        "bytes": asked(client, "images", files, "BYTES")["logits"],
        "version": asked(client, "pixel_values", pixels, "FP32", model_version="1", request_id="a")["logits"],
    }
    found |= asked(
        client, "pixel_values", pixels, "FP32", model=f"{MODEL}.embed", outputs=("class_token", "patch_mean")
    )
    one = triton.InferInput("pixel_values", pixels.shape, "FP32")
    one.set_data_from_numpy(pixels)
    waiting = [client.async_infer(MODEL, [one]) for _ in range(8)]
    found["together"] = np.stack([each.get_result().as_numpy("logits") for each in waiting])
    np.savez(out, **found)
    said = {
        "health": [client.is_server_live(), client.is_server_ready(), client.is_model_ready(MODEL)],
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(MODEL),
        "config": client.get_model_config(MODEL),
        "index": client.get_model_repository_index(),
        "refusals": [
            refusal(client, "pixel_values", pixels[:, :, 1:], "FP32"),
            refusal(client, "pixel_values", pixels, "FP32", model="other"),
            refusal(client, "pixel_values", np.full_like(pixels, np.nan), "FP32"),
        ],
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
