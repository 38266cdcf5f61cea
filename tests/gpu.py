"""Measures vitriad on the GPU of this machine and writes the section of docs/reference/benchmarks.md on it.

    python tests/gpu.py [--out FILE] [--seconds 420] [--tiny]

Correctness first: every class in every framework that sees a GPU, against the float64 reference on the CPU. Then
speed, rivals in turns, medians of single calls between synchronisations; transformers is among them where it is
installed. Needs no network. What would begin after the time is up is named and left out. --tiny takes small models and
settles for a CPU: it tries this file.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import ml_dtypes
import numpy as np

from vit_core.config import ViTConfig, ViTMAEConfig
from vit_core.reference import forward
from vitriad.auto import model_class
from vitriad.parity_matrix.cases import sweep

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "benchmarks.md"
START, END = "<!-- gpu -->", "<!-- end of gpu -->"
TINY = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 96, "image_size": 64}
TINY_DECODER = {"decoder_hidden_size": 32, "decoder_num_attention_heads": 2, "decoder_intermediate_size": 64}
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


class Report:
    """Markdown that is printed as it comes, and the clock."""

    def __init__(self, seconds: float, tiny: bool) -> None:
        self.lines: list[str] = []
        self.end, self.tiny = time.monotonic() + seconds, tiny

    def say(self, line: str = "") -> None:
        print(line, flush=True)
        self.lines.append(line)

    def row(self, *cells: str) -> None:
        self.say(f"| {' | '.join(cells)} |")

    def head(self, title: str, *columns: str) -> None:
        self.say(f"\n{title}\n")
        self.row(*columns)
        self.row(*["---"] * len(columns))

    def part(self, name: str, job: Callable[[], None]) -> None:
        """Runs a part, unless the time is up; what fails is a line, and the rest goes on."""
        if time.monotonic() > self.end:
            self.say(f"\nNot measured, the time was up: {name}.")
            return
        try:
            job()
        except Exception as error:
            self.say(f"\n{name} failed: {type(error).__name__}: {' '.join(str(error).split())[:300]}")


def medians(calls: dict[str, Callable[[], object]], settle: Callable[[], None], rounds: int) -> dict[str, float]:
    """Milliseconds of single calls, in turns, after three of each that do not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 3):
        for name, call in calls.items():
            settle()
            begin = time.perf_counter()
            call()
            settle()
            times[name].append((time.perf_counter() - begin) * 1e3)
            if number < 3:
                times[name].clear()
    return {name: statistics.median(values) for name, values in times.items()}


# --- what the frameworks need ----------------------------------------------------------------------------------------


@contextmanager
def torch_products(tf32: bool | None) -> Iterator[None]:
    """Matrix products as torch comes (None), or with TF32 allowed or not in products and convolutions."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    if tf32 is not None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextmanager
def tensorflow_products(tf32: bool) -> Iterator[None]:
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(tf32)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(True)


def jax_products(precision: str) -> object:
    import jax

    return jax.default_matmul_precision(precision)


def settings(backend: str) -> dict[str, tuple[str, Callable[[], object]]]:
    """Column of the table -> dtype, and the context in which products are taken."""
    half = {"bfloat16": ("bfloat16", nullcontext), "float16": ("float16", nullcontext)}
    wide: dict[str, dict[str, Callable[[], object]]] = {
        "torch": {"as it comes": lambda: torch_products(None), "TF32 allowed": lambda: torch_products(True)},
        "tf": {"as it comes": lambda: tensorflow_products(True), "TF32 refused": lambda: tensorflow_products(False)},
        "flax": {"as it comes": nullcontext, '"highest"': lambda: jax_products("highest")},
    }
    return {f"float32, {name}": ("float32", context) for name, context in wide[backend].items()} | half


def devices(tiny: bool) -> dict[str, str]:
    """Backend -> name of its GPU, for those that see one; with `tiny` the CPU will do."""
    found: dict[str, str] = {}
    if find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            found["torch"] = torch.cuda.get_device_name()
        elif tiny:
            found["torch"] = "the CPU"
    if find_spec("jax") and find_spec("flax"):
        import jax

        if jax.default_backend() == "gpu" or tiny:
            found["flax"] = jax.devices()[0].device_kind
    if find_spec("tensorflow"):
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU") or tiny:
            found["tf"] = "the GPU" if tf.config.list_physical_devices("GPU") else "the CPU"
    return found


# --- correctness -----------------------------------------------------------------------------------------------------


def correctness(report: Report, backend: str, device: str) -> None:
    """The largest error of any output, as a share of its largest value, over random models of every class."""
    parity, columns = import_module(f"vit_{backend}.parity"), settings(backend)
    cases = {case.cls: case for case in sweep()}  # one of each class
    report.head(f"Errors of {parity.FRAMEWORKS[0]} on {device}, as a share of the largest value", "class", *columns)
    for cls, case in cases.items():
        expected = forward(cls, case.config, case.tensors, **case.inputs)
        cells = []
        for dtype, context in columns.values():
            tensors = {name: array.astype(DTYPES[dtype]) for name, array in case.tensors.items()}
            model = model_class(cls, backend).from_tensors(case.config, tensors, **case.options)
            if backend == "torch":
                model = model.to("cuda" if device != "the CPU" else "cpu")
            with context():
                found = parity.outputs(model, case.inputs)
            cells.append(f"{max(errors(found, expected)):.1e}")
        report.row(cls, *cells)


def errors(found: dict, expected: dict) -> Iterator[float]:
    """Of each output that is a number or an array of them, hidden states and attentions layer by layer."""
    for name, output in found.items():
        pairs = zip(output, expected[name], strict=True) if isinstance(output, tuple) else [(output, expected[name])]
        for got, right in pairs:
            right = np.asarray(right, np.float64)
            yield float(np.abs(np.asarray(got, np.float64) - right).max() / np.abs(right).max())


# --- speed of PyTorch ------------------------------------------------------------------------------------------------


class TorchSpeed:
    """Forward passes, the table of the ViTMAE page, and a training step."""

    def __init__(self, report: Report) -> None:
        import torch

        self.torch, self.report = torch, report
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.sizes = TINY if report.tiny else {}
        self.side = 64 if report.tiny else 224
        self.rounds = 2 if report.tiny else 15

    def settle(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def images(self, batch: int, dtype: object) -> object:
        return self.torch.randn(batch, 3, self.side, self.side, device=self.device, dtype=dtype)

    def encoders(self) -> dict[str, object]:
        """Encoders without a pooler: ours with both kinds of attention, and the peer's where it is installed."""
        import vit_torch

        rivals = {
            f"vit_torch, {kernel}": vit_torch.ViTModel(
                ViTConfig(**self.sizes, attn_implementation=kernel), add_pooling_layer=False
            )
            for kernel in ("sdpa", "eager")
        }
        if find_spec("transformers"):
            import transformers

            config = transformers.ViTConfig(**self.sizes, attn_implementation="sdpa")
            name = f"transformers {transformers.__version__}, sdpa"
            rivals[name] = transformers.ViTModel(config, add_pooling_layer=False)
        return rivals

    def forward(self, dtype: str, tf32: bool = False, compiled: bool = False) -> None:
        torch, batches = self.torch, (1, 2) if self.report.tiny else (1, 8, 64)
        rivals = {name: model.to(self.device, getattr(torch, dtype)).eval() for name, model in self.encoders().items()}
        if compiled:
            rivals = {f"{name}, compiled": torch.compile(m) for name, m in rivals.items() if "eager" not in name}
        title = f"Forward of ViT-B/16, {dtype}{' with TF32' if tf32 else ''}, ms a batch"
        rows: dict[str, list[str]] = {name: [] for name in rivals}
        with torch_products(tf32), torch.inference_mode():
            for batch in batches:
                images = self.images(batch, getattr(torch, dtype))
                calls = {name: partial(model, images) for name, model in rivals.items()}
                for name, took in medians(calls, self.settle, self.rounds).items():
                    rows[name].append(f"{took:.2f}")
        self.report.head(title, "model", *(f"batch {batch}" for batch in batches))
        for name, cells in rows.items():
            self.report.row(name, *cells)

    def attention(self) -> None:
        import vit_torch

        torch = self.torch
        self.report.head("ViTMAE-B encoder, eager against sdpa, ms a batch", "dtype", "batch", "eager", "sdpa", "ratio")
        for dtype in ("float32", "float16"):
            pair = {
                kernel: vit_torch.ViTMAEModel(ViTMAEConfig(**self.sizes, attn_implementation=kernel)).eval()
                for kernel in ("eager", "sdpa")
            }
            pair = {kernel: model.to(self.device, getattr(torch, dtype)) for kernel, model in pair.items()}
            for batch in (1, 8) if self.report.tiny else (1, 2, 4, 8):
                images = self.images(batch, getattr(torch, dtype))
                with torch.inference_mode():
                    calls = {kernel: partial(model, images) for kernel, model in pair.items()}
                    took = medians(calls, self.settle, self.rounds)
                eager, sdpa = took["eager"], took["sdpa"]
                self.report.row(dtype, str(batch), f"{eager:.2f}", f"{sdpa:.2f}", f"{eager / sdpa:.2f}")

    def training(self) -> None:
        import vit_torch

        decoder = TINY_DECODER if self.report.tiny else {}
        rivals = {"vit_torch": lambda: vit_torch.ViTMAEForPreTraining(ViTMAEConfig(**self.sizes, **decoder))}
        if find_spec("transformers"):
            import transformers

            config = transformers.ViTMAEConfig(**self.sizes, **decoder)
            rivals["transformers"] = lambda: transformers.ViTMAEForPreTraining(config)
        batch = 2 if self.report.tiny else 64
        title = f"Training step of ViTMAE-B, {batch} images, bfloat16 autocast, fused AdamW"
        self.report.head(title, "model", "ms", "peak memory, GB")
        for name, make in rivals.items():
            took, peak = self.step(make().to(self.device).train(), self.images(batch, self.torch.float32))
            self.report.row(name, f"{took:.1f}", f"{peak:.2f}")

    def step(self, model: object, images: object) -> tuple[float, float]:
        """Milliseconds of a step of training, and the peak of memory in GB."""
        torch = self.torch
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=self.device == "cuda")

        def step() -> None:
            with torch.autocast(self.device, torch.bfloat16):
                loss = model(images).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        took = medians({"step": step}, self.settle, self.rounds)["step"]
        return took, torch.cuda.max_memory_allocated() / 1e9 if self.device == "cuda" else float("nan")


# --- speed of JAX ----------------------------------------------------------------------------------------------------


def jax_forward(report: Report, dtype: str) -> None:
    import jax
    import jax.numpy as jnp

    import vit_flax

    config, batches = ViTConfig(**TINY if report.tiny else {}), (1, 2) if report.tiny else (1, 8, 64)
    model = vit_flax.FlaxViTModel(config, dtype=jnp.dtype(dtype), add_pooling_layer=False)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), model.params)
    run = jax.jit(lambda params, images: model.module.apply({"params": params}, images)[0])

    def call(params: object, images: object) -> None:
        jax.block_until_ready(run(params, images))

    cells = []
    for batch in batches:
        images = jnp.asarray(np.random.default_rng(0).standard_normal((batch, 3, *[config.image_size] * 2)), dtype)
        took = medians({"call": partial(call, params, images)}, lambda: None, 15)
        cells.append(f"{took['call']:.2f}")
    report.head(f"Forward of ViT-B/16 in JAX, {dtype}, ms a batch", "model", *(f"batch {batch}" for batch in batches))
    report.row("vit_flax, jit", *cells)


# --- the page --------------------------------------------------------------------------------------------------------


def measure(report: Report, found: dict[str, str]) -> None:
    """Everything, in the order of its worth."""
    report.say(machine(found))
    for backend, device in found.items():
        report.part(f"correctness of {backend}", lambda b=backend, d=device: correctness(report, b, d))
    if "torch" in found:
        speed = TorchSpeed(report)
        report.part("forward, float32", lambda: speed.forward("float32"))
        report.part("forward, float32 with TF32", lambda: speed.forward("float32", tf32=True))
        report.part("forward, bfloat16", lambda: speed.forward("bfloat16"))
        report.part("training", speed.training)
        report.part("attention", speed.attention)
    if "flax" in found:
        report.part("JAX, bfloat16", lambda: jax_forward(report, "bfloat16"))
        report.part("JAX, float32", lambda: jax_forward(report, "float32"))
    if "torch" in found and not report.tiny:
        report.part("forward, bfloat16, compiled", lambda: speed.forward("bfloat16", compiled=True))


def machine(found: dict[str, str]) -> str:
    names = ("torch", "jax", "flax", "tensorflow", "transformers", "numpy")
    versions = ", ".join(f"{name} {number}" for name in names if (number := installed(name)))
    where = ", ".join(sorted({*found.values()}))
    return f"{where}; Python {sys.version.split()[0]}, {versions}. {time.strftime('%Y-%m-%d')}."


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=PAGE, help="Markdown file whose section is replaced")
    parser.add_argument("--seconds", type=float, default=420, help="begin nothing after this time")
    parser.add_argument("--tiny", action="store_true", help="small models, on a CPU too")
    options = parser.parse_args()
    found = devices(options.tiny)
    if not found:
        print("gpu.py: skipped: no installed framework sees a GPU (`vitriad doctor` says what each sees)")
        return 0
    report = Report(options.seconds, options.tiny)
    measure(report, found)
    before, _, rest = options.out.read_text().partition(START)
    options.out.write_text("\n".join([before + START, *report.lines, END + rest.partition(END)[2]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
