"""Options that several commands share, what the library calls them, and how their values are read."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

from vit_core.errors import InputError
from vitriad.backends import BACKENDS, backend_name
from vitriad.models import NAMES
from vitriad.optimizing import add_option

MODEL = f"folder, hub name 'owner/name', or a model that comes with vitriad: {', '.join(NAMES)}"
FORMATS = ("onnx", "openvino", "pt2", "aoti", "litert", "savedmodel", "stablehlo")
LOSSES = ("numerics", "pre_logits", "distillation")
CONFIG = "config.json to go by, in place of the checkpoint's own"
PROCESSOR = "folder, JSON file or hub name of an image processor (the model's own, or its program's)"
REVISION = "commit, tag or branch on the hub; name a commit where nobody watches"


def reporting(parser: argparse.ArgumentParser, printed: str, drawn: str) -> None:
    """The options of commands that print what they find, and draw it if asked."""
    parser.add_argument("--json", action="store_true", help=printed)
    parser.add_argument("--out", metavar="FILE", help=f"{drawn} to write, a PNG file")
    parser.add_argument("--force", action="store_true", help="replace what is there")


def viewing(parser: argparse.ArgumentParser, model: str, out: str) -> None:
    """The options of all commands that draw."""
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="image file, or a folder of them")
    asking(parser, model)
    parser.add_argument("--out", metavar="FILE", default=out, help="PNG file to write (%(default)s)")
    parser.add_argument("--force", action="store_true", help="replace what is there")


def asking(parser: argparse.ArgumentParser, model: str, engines: bool = False) -> None:
    """The options that say which model sees the images, an exported program too, and how they are prepared for it."""
    parser.add_argument("--model", metavar="DIR_OR_ID", default=model, help=f"{MODEL} (%(default)s)")
    parser.add_argument("--revision", metavar="COMMIT", help=REVISION)
    text = "framework (the first installed)"
    if engines:
        running(parser, text)
        add_option(parser)
    else:
        parser.add_argument("--backend", type=backend_name, choices=("auto", *BACKENDS), default="auto", help=text)
    parser.add_argument("--processor", metavar="DIR_OR_ID", help=PROCESSOR)


def running(parser: argparse.ArgumentParser, said: str) -> None:
    """The options that say what computes: a framework, or of an exported program the engine of its format."""
    known = ("auto", *BACKENDS, *FORMATS)
    text = f"{said}; of an exported program its format"
    values: dict[str, Any] = {"type": backend_name, "choices": known, "metavar": "NAME", "default": "auto"}
    parser.add_argument("--backend", **values, help=f"{', '.join(known)}; {text}")
    parser.add_argument("--threads", metavar="N", type=positive, help="that an exported program may use")
    text = "run an exported program that is machine code: only from people you trust"
    parser.add_argument("--machine-code", action="store_true", help=text)


def on_images(parser: argparse.ArgumentParser) -> None:
    """The options that say on which images two are compared."""
    text = "image files or folders to compare on (random numbers)"
    parser.add_argument("--images", metavar="PATH", nargs="+", default=(), help=text)
    parser.add_argument("--processor", metavar="DIR_OR_ID", help=PROCESSOR)


def check_images(arguments: argparse.Namespace) -> None:
    """Refuses a processor that has nothing to prepare.

    Raises:
        InputError: --processor without --images.
    """
    if arguments.processor is not None and not arguments.images:
        raise InputError("--processor: it prepares images, and there are none.\n--images names some.")


def reading(parser: argparse.ArgumentParser, json_output: bool = True) -> None:
    """The options that say how to read a checkpoint."""
    parser.add_argument("--class", dest="cls", metavar="CLASS", help="such as ViTModel; else what the file holds")
    parser.add_argument("--weights", metavar="NAME", help="which one, where a file holds several models: teacher, ...")
    parser.add_argument(
        "--allow",
        action="append",
        metavar="LOSS",
        default=[],
        choices=LOSSES,
        help="go on although outputs change: numerics (the target computes with another GELU or epsilon), pre_logits "
        "(a layer before the classifier is dropped), distillation (DeiT's second token is dropped)",
    )
    text = "number of attention heads, where the file does not say it"
    parser.add_argument("--heads", type=positive, metavar="N", help=text)
    parser.add_argument(
        "--set",
        action="append",
        metavar="FIELD=JSON",
        default=[],
        help="a field of the configuration, such as norm_pix_loss=true",
    )
    parser.add_argument("--config", metavar="FILE", help=CONFIG)
    parser.add_argument("--revision", metavar="COMMIT", help=REVISION)
    if json_output:
        parser.add_argument("--json", action="store_true", help="one JSON object")


def reading_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those options as keywords of `conversion.load`.

    Raises:
        InputError: --set without a field or a value, or of something that is no field.
    """
    from conversion.keywords import is_option
    from vit_core.errors import InputError

    options = {"cls": arguments.cls, "weights": arguments.weights, "num_attention_heads": arguments.heads}
    options |= {"config": arguments.config, "revision": arguments.revision, "allow": tuple(arguments.allow) or None}
    for text in arguments.set:
        name, _, value = text.partition("=")
        if is_option(name):
            raise InputError(f"--set {name}: an option of loading, not a field of the configuration.")
        try:
            options[name] = json.loads(value)
        except (ValueError, RecursionError):
            raise InputError(f"--set {text[:80]}: expected FIELD=JSON, such as image_size=[224,192].") from None
    return {name: value for name, value in options.items() if value is not None}


def running_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `vitriad.load` takes for a model of `running` beside its backend, where it was given."""
    given = {name: getattr(arguments, name, None) for name in ("revision", "threads", "machine_code", "optimize")}
    return {name: value for name, value in given.items() if value}


def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Reads names with commas between them."""

    def read(text: str) -> list[str]:
        names = [backend_name(name.strip()) for name in text.split(",")]
        if wrong := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, got {wrong[0]!r}")
        return names

    return read


def share_or_path(text: str) -> float | str:
    """A number, or else a path."""
    try:
        return float(text)
    except ValueError:
        return text


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    try:
        return tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected layers such as 3,6,-1, got {text!r}") from None


def size(text: str) -> tuple[int, int]:
    """(height, width), of text such as 224 or 224x192."""
    sides = [positive(side) for side in text.split("x")]
    if len(sides) > 2:
        raise argparse.ArgumentTypeError(f"expected HxW in pixels, such as 224x192, got {text!r}")
    return sides[0], sides[-1]


def at_least_0(text: str) -> float:
    """A number from 0 to 86,400, of milliseconds or seconds."""
    number = float(text)  # argparse says it where this is none
    if not 0 <= number < 86_400:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to a day, got {text!r}")
    return number


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)
