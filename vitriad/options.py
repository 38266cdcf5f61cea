"""The options of every command."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any, NoReturn

from vitriad.backends import BACKENDS, backend_name
from vitriad.models import NAMES
from vitriad.optimizing import add_option
from vitriad.option_groups import (
    CONFIG,
    FORMATS,
    MODEL,
    PROCESSOR,
    REVISION,
    asking,
    at_least_0,
    numbers,
    on_images,
    positive,
    reading,
    reporting,
    running,
    share_or_path,
    size,
    some_of,
    viewing,
)

JOBS = {  # of the commands, as --help has them
    "start here": ("demo", "play", "doctor", "completion"),
    "a service": ("serve", "deploy"),
    "images": ("classify", "attend", "reconstruct", "compare"),
    "features of many images": ("embed", "search", "probe"),
    "training": ("finetune", "pretrain"),
    "checkpoints": ("inspect", "convert", "verify"),
    "other engines and proofs": ("export", "parity"),
}
_CHECKS = ("forward", "hidden", "attentions", "loss", "gradients", "training", "preprocessing", "roundtrip")
_DTYPES = ("float64", "float32", "bfloat16", "float16")
TARGETS = ("hf", "hf_tf", "hf_flax", "timm", "google", "torchvision", "mae")
_PURPOSES = ("logits", "features", "reconstruction", "attentions")
_FEATURES = ("class_token", "patch_mean", "patch_tokens")
_ADAPTATIONS = ("channels", "patches")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for: that takes longer than all the rest."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from vit_core.installing import own_version

        print(f"vitriad {own_version()}")
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in two lines: a list of all options hides it."""

    def error(self, message: str) -> NoReturn:
        """Ends with 2, for wrong usage."""
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help says how it is used.\n")


def commands() -> Mapping[str, argparse.ArgumentParser]:
    """The parser of every command, by its name."""
    action = next(each for each in make_parser()._actions if isinstance(each, argparse._SubParsersAction))
    found: Mapping[str, argparse.ArgumentParser] = action.choices
    return found


def make_parser() -> argparse.ArgumentParser:
    """The parser of `vitriad`; its `command` is the name of one of `commands`."""
    parser = _Parser(
        prog="vitriad",
        usage="%(prog)s [-h] [--version] COMMAND ...",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some images were skipped.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    options: dict[str, Any] = {"dest": "command", "required": True, "metavar": "COMMAND", "prog": parser.prog}
    commands = parser.add_subparsers(**options, help=argparse.SUPPRESS)  # listed in the overview

    demo = _command(commands, "demo", "run the shipped models on held-out digits with every backend", "vitriad demo")
    demo.add_argument("--output", metavar="DIR", default="demo-output", help="where pictures go (%(default)s)")

    example = "vitriad play digits-vit"
    play = _command(commands, "play", "try models on your images, on a page in your browser", example)
    play.add_argument("models", metavar="MODEL", nargs="*", default=NAMES, help=f"{MODEL} (these two)")
    running(play, "auto: all that are installed")
    play.add_argument("--revision", metavar="COMMIT", help=REVISION)
    play.add_argument("--processor", metavar="DIR_OR_ID", help=PROCESSOR)
    play.add_argument(
        "--port", metavar="N", type=int, default=8765, help="of this machine; 0: a free one (%(default)s)"
    )
    play.add_argument("--open", action="store_true", help="open the page in your browser")

    _add_serve(commands)
    _add_deploy(commands)
    example = "vitriad demo && vitriad classify --top-k 2 demo-output/digits/*.png"
    classify = _command(commands, "classify", "say what images show", example)
    classify.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        help="image file (JPEG, PNG, WebP, GIF, BMP, TIFF), or a folder of them with its subfolders",
    )
    classify.add_argument("--model", metavar="DIR_OR_ID", default=NAMES[0], help=f"{MODEL} (%(default)s)")
    classify.add_argument("--config", metavar="FILE", help=CONFIG)
    classify.add_argument("--revision", metavar="COMMIT", help=REVISION)
    running(classify, "auto: the first installed")
    add_option(classify)
    classify.add_argument("--processor", metavar="DIR_OR_ID", help=PROCESSOR)
    classify.add_argument("--top-k", metavar="N", type=positive, default=3, help="classes to show (%(default)s)")
    classify.add_argument("--json", action="store_true", help="one JSON object per image, also for those skipped")

    _add_pictures(commands)
    _add_training(commands)
    _add_conversion(commands)
    _add_parity(commands)
    doctor = _command(commands, "doctor", "versions, backends and devices, for bug reports", "vitriad doctor")
    doctor.add_argument("--json", action="store_true", help="one JSON object")
    text = "print a script that lets a shell complete commands and options"
    completion = _command(commands, "completion", text, "vitriad completion bash")
    completion.add_argument("shell", metavar="SHELL", choices=("bash", "zsh", "fish"), help="bash, zsh or fish")
    parser.description = _overview(commands.choices)
    return parser


def _add_serve(commands: Any) -> None:
    serve = _command(commands, "serve", "answer requests over HTTP with models", "vitriad serve digits-vit")
    text = f"what to serve, also as NAME=MODEL and NAME@2=MODEL: {MODEL}, or an exported program"
    serve.add_argument("models", metavar="MODEL", nargs="+", help=text)
    running(serve, "auto: the first installed")
    add_option(serve)
    serve.add_argument("--revision", metavar="COMMIT", help=REVISION)
    serve.add_argument("--processor", metavar="DIR_OR_ID", help=PROCESSOR)
    text = "some of classify, reconstruct, embed: load what these need alone (all that a model can do)"
    serve.add_argument("--tasks", metavar="NAMES", type=some_of(("classify", "reconstruct", "embed")), help=text)
    text = "take pixel values of other sizes than the model's too, where it can"
    serve.add_argument("--any-size", action="store_true", help=text)
    text = (
        "address to listen on; beyond this machine think of --key-file (127.0.0.1; 0.0.0.0 where AIP_HTTP_PORT is set)"
    )
    serve.add_argument("--host", metavar="IP", help=text)
    serve.add_argument("--port", metavar="N", type=int, help="0: a free one (AIP_HTTP_PORT, or 8000)")
    text = "host that requests may name, such as models.example.org; may be repeated"
    serve.add_argument("--allow-host", metavar="NAME", action="append", default=[], help=text)
    text = "file of API keys, one on a line (the environment variable VITRIAD_SERVE_KEY, or none)"
    serve.add_argument("--key-file", metavar="FILE", help=text)
    serve.add_argument("--tls-cert", metavar="FILE", help="certificate, for https")
    serve.add_argument("--tls-key", metavar="FILE", help="its key")
    text = "images that are answered together, at most (%(default)s)"
    serve.add_argument("--batch-size", metavar="N", type=positive, default=32, help=text)
    text = "milliseconds that a request waits for others that are on their way, at most (%(default)s)"
    serve.add_argument("--batch-delay", metavar="MS", type=at_least_0, default=5.0, help=text)
    serve.add_argument("--queue", metavar="N", type=positive, help="images that may wait for a model (4 batches)")
    text = "seconds until a request is answered or given up (%(default)s)"
    serve.add_argument("--deadline", metavar="S", type=at_least_0, default=30.0, help=text)
    serve.add_argument("--quiet", action="store_true", help="no log line for each request")


def _add_deploy(commands: Any) -> None:
    text = "write what TensorFlow Serving, Triton, Docker, Kubernetes or Vertex AI runs"
    deploy = _command(commands, "deploy", text, "vitriad deploy digits-vit image --to kubernetes")
    text = f"what to serve, also as NAME=MODEL and NAME@2=MODEL: {MODEL}, or of tfserving and triton its program"
    deploy.add_argument("model", metavar="MODEL", help=text)
    deploy.add_argument("target", metavar="DIR", help="folder; of tfserving and triton one that has other models too")
    text = (
        "tfserving: SavedModel; triton: ONNX; an image of vitriad serve for docker, kubernetes (KServe too) or vertex"
    )
    layouts = ("tfserving", "triton", "docker", "kubernetes", "vertex")
    deploy.add_argument("--to", required=True, choices=layouts, help=text)
    deploy.add_argument("--force", action="store_true", help="replace what is there")


def _overview(commands: Mapping[str, argparse.ArgumentParser]) -> str:
    """The commands by what they are for, a line each."""
    lines = ["Vision Transformers in PyTorch, TensorFlow and JAX."]
    for job, names in JOBS.items():
        lines += ["", f"{job}:", *(f"  {name:<12} {str(commands[name].description).rstrip('.')}" for name in names)]
    return "\n".join([*lines, "", "vitriad COMMAND --help lists the options of a command and ends with an example."])


def _add_pictures(commands: Any) -> None:
    """What draws what a model does with images."""
    example = "vitriad demo && vitriad embed demo-output/digits --out features.npz"
    embed = _command(commands, "embed", "write the features of many images to a file", example)
    text = "file, folder, pattern or .tar of images, or - for names on stdin"
    embed.add_argument("images", metavar="IMAGE", nargs="+", help=text)
    asking(embed, NAMES[0], engines=True)
    embed.add_argument("--out", metavar="FILE", required=True, help="file to write: .npz, .npy or .parquet")
    text = "some of class_token, patch_mean, patch_tokens (class_token)"
    embed.add_argument("--features", metavar="NAMES", type=some_of(_FEATURES), default=["class_token"], help=text)
    text = "layers to take them from, as --layers=-1,6: 0 is what enters the first one, -1 the output (-1)"
    embed.add_argument("--layers", metavar="N,N", type=numbers, default=(-1,), help=text)
    embed.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the file (%(default)s)")
    embed.add_argument("--batch-size", metavar="N", type=positive, help="images at a time (what is fastest here)")
    text = "local: this process; ray: actors in Ray Data, here or on the cluster that RAY_ADDRESS names (%(default)s)"
    embed.add_argument("--engine", choices=("local", "ray"), default="local", help=text)
    embed.add_argument("--workers", metavar="N", type=positive, help="actors of Ray (2)")
    embed.add_argument("--force", action="store_true", help="replace what is there; begin an interrupted run anew")

    example = "vitriad search features.npz demo-output/digits/3*.png --out nearest.png"
    search = _command(commands, "search", "find the images whose features are nearest to a picture's", example)
    search.add_argument("features", metavar="FEATURES", help="file that vitriad embed wrote, with the same model")
    search.add_argument("images", metavar="IMAGE", nargs="+", help="image file, or a folder of them")
    asking(search, NAMES[0], engines=True)
    search.add_argument("--column", metavar="NAME", help="which features (the first of one row for each image)")
    search.add_argument("--top-k", metavar="N", type=positive, default=5, help="images to find (%(default)s)")
    reporting(search, "one JSON object per picture", "contact sheet")

    example = "vitriad probe features.npz --out confusion.png"
    probe = _command(commands, "probe", "say how well simple classifiers do on features", example)
    probe.add_argument("features", metavar="FEATURES", help="file that vitriad embed wrote")
    text = "JSON file {name: class} (the folder that an image is in)"
    probe.add_argument("--labels", metavar="FILE", help=text)
    probe.add_argument("--column", metavar="NAME", help="which features (the first of one row for each image)")
    probe.add_argument("--neighbours", metavar="K", type=positive, default=5, help="of the k-NN probe (%(default)s)")
    probe.add_argument("--test-share", metavar="X", type=float, default=0.2, help="held out (%(default)s)")
    probe.add_argument("--seed", metavar="N", type=int, default=0, help="which images are held out (%(default)s)")
    reporting(probe, "one JSON object", "picture of the linear probe's confusions")

    example = "vitriad demo && vitriad compare digits-vit digits-vit-mae demo-output/digits --out curve.png"
    compare = _command(commands, "compare", "say where two models part on the same images", example)
    text = f"MODEL or MODEL@BACKEND: {MODEL}"
    compare.add_argument("first", metavar="A", help=text)
    compare.add_argument("second", metavar="B", help="the other one")
    compare.add_argument("images", metavar="IMAGE", nargs="+", help="image file, or a folder of them")
    compare.add_argument("--processor", metavar="DIR_OR_ID", help=f"for both: {PROCESSOR}")
    reporting(compare, "one JSON object", "picture of the curve")

    example = "vitriad demo && vitriad attend demo-output/digits/3*.png --out attention.png"
    attend = _command(commands, "attend", "draw what a model looks at in images", example)
    viewing(attend, NAMES[0], "attention.png")
    attend.add_argument("--layer", metavar="N", type=int, default=-1, help="whose heads to draw, from 0 (the last)")
    attend.add_argument("--image-size", metavar="HxW", type=size, help="another size than the model's: finer maps")

    example = "vitriad demo && vitriad reconstruct demo-output/digits/3*.png --seed 3 --mask-ratio 0.5"
    reconstruct = _command(commands, "reconstruct", "draw what a masked autoencoder paints into gaps", example)
    viewing(reconstruct, NAMES[1], "reconstruction.png")
    reconstruct.add_argument("--seed", metavar="N", type=int, default=0, help="which patches are hidden (%(default)s)")
    reconstruct.add_argument("--mask-ratio", metavar="X", type=float, help="share of hidden patches (the model's)")
    text = "picture of the mask in place of a seed: white is hidden; one pixel for each patch, or the image's size"
    reconstruct.add_argument("--mask", metavar="FILE", help=text)


def _add_training(commands: Any) -> None:
    """What trains models on images."""
    example = "vitriad finetune photos --model digits-vit --out my-vit --epochs 2"
    finetune = _command(commands, "finetune", "train a classifier on images of each class", example)
    _training(finetune, "folder of folders, one for each class; or .csv, .tar, .parquet, .npz", MODEL)
    example = "vitriad pretrain photos --objective mae --model digits-vit-mae --out my-mae --epochs 2"
    pretrain = _command(commands, "pretrain", "train an encoder on images without labels", example)
    pretrain.add_argument("--objective", choices=("mae", "mim"), help="masked autoencoder; masked image modelling")
    _training(pretrain, "folder of images; or .csv, .tar, .parquet, .npz", f"to go on from: {MODEL}")


def _training(parser: argparse.ArgumentParser, data: str, model: str) -> None:
    """The options of commands that train."""
    parser.add_argument("data", metavar="DATA", nargs="?", help=data)
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the run; the same command goes on there")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--model", metavar="DIR_OR_ID", help=model)
    start.add_argument("--config", metavar="NAME", help="fresh weights: a preset, or the path of a config.json")
    text = "share of the images to judge by, or data of their own (0.1)"
    parser.add_argument("--held-out", metavar="X", type=share_or_path, help=text)
    parser.add_argument("--epochs", metavar="N", type=positive, help="how often each image is seen (as published)")
    parser.add_argument("--batch-size", metavar="N", type=positive, help="images of a step (64)")
    parser.add_argument("--rate", metavar="X", type=float, help="learning rate for a batch of 256 (as published)")
    parser.add_argument("--seed", metavar="N", type=int, help="of everything that is random (0)")
    known = ("auto", *BACKENDS)
    text = "framework (the first installed)"
    parser.add_argument("--backend", type=backend_name, choices=known, default="auto", help=text)
    text = "any other field of the recipe, such as mixup=0, freeze=encoder or precision=bfloat16"
    parser.add_argument("--set", action="append", metavar="FIELD=VALUE", default=[], help=text)
    text = "share each batch among N devices: GPUs, TPUs or, without them, cores (1; under torchrun, its processes)"
    parser.add_argument("--devices", metavar="N", type=positive, help=text)
    text = "each device holds a share of weights and moments in place of a copy (torch, flax)"
    parser.add_argument("--sharded", action="store_true", help=text)
    parser.add_argument("--recipe", metavar="FILE", help="run a recorded recipe.toml again, with what is given besides")
    parser.add_argument("--dry-run", action="store_true", help="say what it would take, and train nothing")


def _add_conversion(commands: Any) -> None:
    """What looks at, rewrites and compares checkpoints of any dialect."""
    any_dialect = f"weight file of any dialect, {MODEL}"
    example = "vitriad inspect digits-vit"
    inspect = _command(commands, "inspect", "what a checkpoint holds, read without a framework", example)
    inspect.add_argument("model", metavar="CHECKPOINT", help=any_dialect)
    reading(inspect)

    example = "vitriad convert digits-vit digits.npz --to google --allow numerics"
    convert = _command(commands, "convert", "write a checkpoint in another program's names and layout", example)
    convert.add_argument("source", metavar="SRC", help=any_dialect)
    convert.add_argument("target", metavar="DST", help="folder, or a file for google, torchvision and mae")
    convert.add_argument("--to", required=True, choices=TARGETS, help="whose names and layout to write")
    text = "stop unless the source is of this dialect"
    convert.add_argument("--from", dest="from_dialect", metavar="DIALECT", help=text)
    convert.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")
    convert.add_argument("--force", action="store_true", help="replace what is there")
    convert.add_argument("--max-shard-size", metavar="SIZE", default="5GB", help="largest weight file (%(default)s)")
    text = "channels, patches: bring the patch projection to --set num_channels=N or patch_size=N"
    convert.add_argument("--adapt", action="append", metavar="WHAT", default=[], choices=_ADAPTATIONS, help=text)
    reading(convert)

    _add_export(commands, any_dialect)
    example = "vitriad verify digits-vit digits-vit --tolerance 0"
    verify = _command(commands, "verify", "compare what two checkpoints compute for the same images", example)
    verify.add_argument("source", metavar="SRC", help=any_dialect)
    verify.add_argument("target", metavar="DST", help="another checkpoint, of the same sizes, or an exported program")
    running(verify, "framework (%(default)s)")
    on_images(verify)
    share = "of an output's largest value (1e-5, or what the precision of an exported program allows)"
    verify.add_argument("--tolerance", type=float, metavar="X", help=share)
    reading(verify)


def _add_export(commands: Any, any_dialect: str) -> None:
    example = "vitriad export digits-vit digits-onnx --to onnx --dynamic size"
    export = _command(commands, "export", "write a model as a program for another engine, with a certificate", example)
    export.add_argument("source", metavar="SRC", help=any_dialect)
    export.add_argument("target", metavar="DST", help="folder")
    export.add_argument("--to", required=True, choices=FORMATS, help="format of the program")
    backends = ("auto", *BACKENDS)
    export.add_argument("--backend", type=backend_name, choices=backends, default="auto", help="framework to write it")
    export.add_argument("--outputs", choices=_PURPOSES, help="what it returns (what the model is for)")
    export.add_argument("--layers", metavar="N,N", type=numbers, default=(), help="hidden states beside the features")
    export.add_argument("--dynamic", choices=("batch", "size"), default="batch", help="size: images of any size too")
    export.add_argument("--image-size", metavar="HxW", type=size, help="another fixed size than the model's")
    text = "take uint8 images in this layout, rescale and normalise inside (nhwc); or, of savedmodel, image files"
    layouts = ("nhwc", "nchw", "bytes", "base64")
    export.add_argument("--with-preprocessing", choices=layouts, nargs="?", const="nhwc", help=text)
    text = "of the weights and of what it computes in (%(default)s)"
    export.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help=text)
    text = "matrices of 8-bit integers: weights alone, or what they multiply too, with scales of each call or of images"
    export.add_argument("--int8", choices=("dynamic", "static", "weights"), help=text)
    text = "pictures for --int8 static to take its scales from: files and folders"
    export.add_argument("--calibration", metavar="PATH", nargs="+", default=(), help=text)
    text = "smallest cosine of a picture in int8 (0.997, of static 0.99)"
    export.add_argument("--min-cosine", metavar="X", type=float, help=text)
    text = "pictures for the certificate: files and folders (digits)"
    export.add_argument("--images", metavar="PATH", nargs="+", default=(), help=text)
    export.add_argument("--aoti", action="store_true", help="of pt2: compiled to machine code, as --to aoti")
    export.add_argument("--force", action="store_true", help="replace what is there")
    reading(export)


def _add_parity(commands: Any) -> None:
    example = "vitriad parity --checks forward,loss --dtype float32"
    parity = _command(commands, "parity", "compare the backends with a float64 oracle and with one another", example)
    which = parity.add_mutually_exclusive_group()
    which.add_argument("model", metavar="CHECKPOINT", nargs="?", help=f"weight file of any dialect, {MODEL}")
    which.add_argument("--preset", metavar="NAME", help="a published size at random, such as vit-base-patch16-224")
    lists = (
        ("--backends", (*BACKENDS, *FORMATS), None, "the first three, if they are installed"),
        ("--dtype", _DTYPES, ["float64", "float32"], "float64,float32"),
        ("--checks", _CHECKS, [*_CHECKS], "all"),
    )
    for option, known, default, said in lists:
        text = f"some of {', '.join(known)} ({said})"
        parity.add_argument(option, metavar="NAMES", type=some_of(known), default=default, help=text)
    on_images(parity)
    parity.add_argument("--json", dest="json_file", metavar="FILE", help="write everything that was found")
    parity.add_argument("--html", dest="html_file", metavar="FILE", help="write a report for people, in one file")
    reading(parity, json_output=False)


def _command(commands: Any, name: str, description: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        description=f"{description[0].upper()}{description[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="on an error, show the traceback")
    return parser
