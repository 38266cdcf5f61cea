"""Writes tests/golden/images: what transformers' own ViTImageProcessor makes of small images.

Run it in an environment of its own, from the root of the repository:

    pip install transformers==4.57.6 numpy==2.4.6 pillow==13.0.0 torch==2.13.0    # and no torchvision
    python tests/golden/make_images.py

The same versions write the same bytes. Files:

    inputs.npz      uint8 images (height, width, channels): height 13, width 9; 1, 3 and 4 channels
    uint8.npz       "<filter>.<height>x<width>.<channels>" -> (input layout, output layout, numbers), layouts in the
                    order channels_first, channels_last
    floats.npz      "<kind>.<dtype>.<resize><rescale><normalize>" -> the result, each step 0 or 1
    modes.npz       "<mode>.data", ".palette", ".result": PIL images, as raw bytes, under do_convert_rgb=True
    methods.npz     "<method>.<arguments>" -> the result of one public method
    crops.npz       "<size>.<crop size>.<steps>" -> the result of DeiTImageProcessor, filter and size its own where None
    processors.json keyword arguments and the text of preprocessor_config.json they lead to
    deit_processors.json   the same of DeiTImageProcessor
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import transformers
from PIL import Image
from transformers.models.deit.image_processing_deit import DeiTImageProcessor
from transformers.models.vit.image_processing_vit import ViTImageProcessor

FOLDER = Path(__file__).parent / "images"
VERSIONS = {"transformers": "4.57.6", "numpy": "2.4.6", "pillow": "13.0.0"}

HEIGHT, WIDTH = 13, 9
SIZES = [(5, 7), (21, 17), (HEIGHT, WIDTH), (19, 4), (1, 1)]  # shrink, grow, same, one of each, a single pixel
FILTERS = range(6)
LAYOUTS = ("channels_first", "channels_last")
MEAN = [0.485, 0.456, 0.406, 0.3]
STD = [0.229, 0.224, 0.225, 0.4]
MODES = ("RGB", "L", "1", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV")
PROCESSORS: list[dict[str, Any]] = [
    {},
    {"size": 33},
    {"size": [18, 20]},
    {"size": {"width": 3, "height": 5}},
    {"size": {"shortest_edge": 224}},
    {"resample": 3, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    {"image_mean": 0.5, "image_std": 1, "rescale_factor": 1, "do_normalize": False},
    {"image_mean": [0, 0.5, 1], "do_convert_rgb": True, "do_resize": False, "do_rescale": False},
    {"processor_class": "SomeProcessor", "crop_pct": 0.9, "_private": {"b": [1, None], "a": "\u00e9"}},
    {"feature_extractor_type": "ViTFeatureExtractor", "size": 224},
    {"image_processor_type": "ViTImageProcessor", "do_pad": False, "do_center_crop": None, "crop_size": None},
]


def images() -> dict[str, np.ndarray]:
    """A noisy slope per channel: flat enough to tell filters apart, with both ends of the range in it."""
    rng = np.random.default_rng(4576)
    made = {}
    for channels in (1, 3, 4):
        slope = np.linspace(0, 255, HEIGHT * WIDTH * channels).reshape(HEIGHT, WIDTH, channels)
        noisy = np.where(rng.random(slope.shape) < 0.3, rng.integers(0, 256, slope.shape), slope)
        made[str(channels)] = noisy.astype(np.uint8)
    return made


def processor(channels: int, **options: Any) -> ViTImageProcessor:
    return ViTImageProcessor(image_mean=MEAN[:channels], image_std=STD[:channels], **options)


def in_layout(image: np.ndarray, layout: str) -> np.ndarray:
    return image.transpose(2, 0, 1) if layout == "channels_first" else image


def uint8(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    results = {}
    for resample in FILTERS:
        for size in SIZES:
            for name, image in inputs.items():
                process = processor(int(name), size=size, resample=resample)
                results[f"{resample}.{size[0]}x{size[1]}.{name}"] = np.array(
                    [
                        [
                            process(in_layout(image, given), data_format=wanted, input_data_format=given)[
                                "pixel_values"
                            ][0].ravel()
                            for wanted in LAYOUTS
                        ]
                        for given in LAYOUTS
                    ]
                )
    return results


def floats(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Numbers in 0..1, whole numbers, and zeros and ones, through every choice of steps."""
    image = inputs["3"]
    kinds = {"unit": image / 256 + 0.001, "whole": image, "binary": image > 127}
    results = {}
    for kind, numbers in kinds.items():
        for dtype in ("float16", "float32", "float64", "int32", "uint16"):
            if kind == "unit" and not dtype.startswith("float"):
                continue
            for steps in range(8):
                switches = f"{steps:03b}"
                resize, rescale, normalize = (switch == "1" for switch in switches)
                process = processor(3, size=(5, 7), do_resize=resize, do_rescale=rescale, do_normalize=normalize)
                result = process(numbers.astype(dtype), input_data_format="channels_last")["pixel_values"][0]
                results[f"{kind}.{dtype}.{switches}"] = result
    return results


def modes(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rgba = Image.fromarray(inputs["4"])
    results = {}
    for mode in MODES:
        source = rgba if mode in ("RGBA", "LA") else rgba.convert("RGB")
        image = source.convert(mode)
        results[f"{mode}.data"] = np.frombuffer(image.tobytes(), np.uint8)
        results[f"{mode}.palette"] = np.array(image.getpalette() or [], np.uint8)
        results[f"{mode}.result"] = processor(3, size=(5, 7), do_convert_rgb=True)(image)["pixel_values"][0]
    return results


def methods(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    process = ViTImageProcessor()
    image = inputs["3"]
    results = {}
    for height, width in ((5, 6), (6, 5), (20, 4), (4, 20), (16, 14), (HEIGHT, WIDTH)):
        results[f"center_crop.{height}x{width}"] = process.center_crop(image, {"height": height, "width": width})
    results["resize.4x6"] = process.resize(image, {"height": 4, "width": 6})
    results["resize_unit.4x6"] = process.resize(image / np.float32(255), {"height": 4, "width": 6})
    results["rescale.0.1"] = process.rescale(image, 0.1)
    results["normalize.uint8"] = process.normalize(image, MEAN[:3], STD[:3])
    results["normalize.float64"] = process.normalize(image / 255, MEAN[:3], STD[:3])
    results["normalize.scalar"] = process.normalize(image, 0.3, 0.7)
    return results


def crops(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sides cut and padded by even and odd remainders, with and without the other steps."""
    results = {}
    for size in ((12, 9), (7, 15)):
        for crop in ((5, 4), (6, 5), (12, 9), (9, 20), (20, 8), (15, 16)):
            for resize, numbers in ((True, True), (False, True), (True, False)):
                process = DeiTImageProcessor(
                    size=dict(zip(("height", "width"), size, strict=True)),
                    crop_size=dict(zip(("height", "width"), crop, strict=True)),
                    do_resize=resize,
                    do_rescale=numbers,
                    do_normalize=numbers,
                    image_mean=MEAN[:3],
                    image_std=STD[:3],
                )
                name = f"{size[0]}x{size[1]}.{crop[0]}x{crop[1]}.{resize:d}{numbers:d}"
                results[name] = process(inputs["3"], input_data_format="channels_last")["pixel_values"][0]
    return results


def processors() -> list[dict[str, Any]]:
    return [{"arguments": given, "text": ViTImageProcessor.from_dict(given).to_json_string()} for given in PROCESSORS]


def deit_texts() -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = [{}, {"size": {"height": 20, "width": 30}, "crop_size": {"height": 9, "width": 7}}]
    return [{"arguments": each, "text": DeiTImageProcessor.from_dict(each).to_json_string()} for each in given]


def main() -> None:
    found = {"transformers": transformers.__version__, "numpy": np.__version__, "pillow": PIL.__version__}
    if found != VERSIONS:
        raise SystemExit(f"expected {VERSIONS}, got {found}")
    FOLDER.mkdir(exist_ok=True)
    inputs = images()
    np.savez_compressed(FOLDER / "inputs.npz", **inputs)
    for group in (uint8, floats, modes, methods, crops):
        np.savez_compressed(FOLDER / f"{group.__name__}.npz", **group(inputs))
    text = json.dumps(processors(), indent=2, sort_keys=True) + "\n"
    (FOLDER / "processors.json").write_text(text, encoding="utf-8")
    text = json.dumps(deit_texts(), indent=2, sort_keys=True) + "\n"
    (FOLDER / "deit_processors.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
