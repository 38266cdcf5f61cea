"""Plants faults in the source, one at a time in a scratch copy, and shows that the tests catch every one.

    python tests/mutate.py              prints a table; exits 1 if a fault survives
    python tests/mutate.py vit_flax     only the faults of that package
    python tests/mutate.py --each 3     three of every package, others every day
    python tests/mutate.py --random 10  ten of each backend, at lines that chance picks

Each fault is an edit of one line that real ports of this model have got wrong. The copy is compared with the oracle in
a fresh process; it is a catch only if tests fail, not if the copy cannot be imported.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
import tokenize
from datetime import date
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PACKAGES = ("vit_core", "vit_torch", "vit_tf", "vit_flax", "conversion", "vitriad", "tests")
SUITES = {
    "vit_torch": ["tests/vit_torch/test_parity.py"],
    "vit_tf": ["tests/vit_tf/test_parity.py", "-k", "test_outputs or test_gradients"],
    "vit_flax": ["tests/vit_flax/test_parity.py", "-k", "large_mean or kernel or test_outputs and float64"],
    "conversion": ["tests/conversion/test_foreign.py"],
    "vit_core": ["tests/vit_torch/test_parity.py", "tests/vit_core/test_reference.py"],
}


OTHERS = {"+": "-", "-": "+", "*": "+", "/": "*", "//": "*", "<": ">=", "==": "!=", "+=": "-="}  # operators


class Fault(NamedTuple):
    """One edit: `old` stands exactly once in `file`."""

    what: str
    file: str
    old: str
    new: str


FAULTS = [
    Fault(
        "class token behind the patches",
        "vit_torch/vit.py",
        "torch.cat((cls_token, embeddings), dim=1)  # (batch, tokens, hidden)",
        "torch.cat((embeddings, cls_token), dim=1)",
    ),
    Fault(
        "decoder without its last norm",
        "vit_torch/vit_mae.py",
        "self.decoder_norm(hidden_states)",
        "hidden_states",
    ),
    Fault(
        "class token behind the patches",
        "vit_tf/vit.py",
        "ops.concatenate((cls_token, embeddings), axis=1)  # (batch, tokens, hidden)",
        "ops.concatenate((embeddings, cls_token), axis=1)",
    ),
    Fault(
        "queries and keys swapped in timm's names",
        "conversion/tables/timm.py",
        '_QKV = ("query", "key", "value")',
        '_QKV = ("key", "query", "value")',
    ),
    Fault("kernel axes swapped", "conversion/layouts.py", '"conv": (3, 2, 0, 1)', '"conv": (3, 2, 1, 0)'),
    Fault(
        "output projection not transposed",
        "conversion/layouts.py",
        'dict.fromkeys(("linear", "heads_in", "heads_out"), (1, 0))',
        'dict.fromkeys(("linear", "heads_in"), (1, 0))',
    ),
    Fault(
        "head_dim before heads",
        "conversion/layouts.py",
        "return array.reshape(len(array), -1)",
        "return array.transpose(0, 2, 1).reshape(len(array), -1)",
    ),
    Fault(
        "LayerScale by columns",
        "conversion/folds.py",
        ".reshape(-1, *[1] * (len(tensor.shape) - 1))",
        ".reshape(*[1] * (len(tensor.shape) - 1), -1)[..., : tensor.shape[-1]]",
    ),
    Fault(
        "BatchNorm's mean forgotten",
        "conversion/folds.py",
        "bias.read() - new_weight() @ mean.read().astype(np.float64)",
        "bias.read().astype(np.float64)",
    ),
    Fault("first layer of Keras taken for the second", "conversion/naming.py", 'number or "0"', 'number or "1"'),
    Fault(
        "Google's GELU taken for the exact one",
        "conversion/dialects.py",
        '"hidden_act": "gelu_pytorch_tanh"',
        '"hidden_act": "gelu"',
    ),
    Fault(
        "class row of zeros behind the patches",
        "conversion/folds.py",
        "np.concatenate([np.zeros((shape[0], 1, shape[2]), table.dtype), table.read()], axis=1)",
        "np.concatenate([table.read(), np.zeros((shape[0], 1, shape[2]), table.dtype)], axis=1)",
    ),
    Fault("tanh GELU", "vit_torch/activations.py", 'approximate="none"', 'approximate="tanh"'),
    Fault("softmax scale forgotten", "vit_torch/vit.py", "transpose(2, 3)) * self.head_dim**-0.5", "transpose(2, 3))"),
    Fault(
        "sdpa scale of the whole width",
        "vit_torch/vit.py",
        "scale=self.head_dim**-0.5",
        "scale=query[0].numel() ** -0.5",
    ),
    Fault(
        "query and key swapped",
        "vit_torch/vit.py",
        'for name in ("query", "key", "value")\n        )  #',
        'for name in ("key", "query", "value")\n        )  #',
    ),
    Fault(
        "default LayerNorm epsilon",
        "vit_torch/vit.py",
        "self.layernorm_after = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)",
        "self.layernorm_after = nn.LayerNorm(hidden_size)",
    ),
    Fault(
        "norms swapped",
        "vit_torch/vit.py",
        "self.layernorm_before(hidden_states), head_mask",
        "self.layernorm_after(hidden_states), head_mask",
    ),
    Fault(
        "post-norm residual",
        "vit_torch/vit.py",
        'self.intermediate["dense"](self.layernorm_after(hidden_states))',
        'self.intermediate["dense"](hidden_states)',
    ),
    Fault(
        "lost output bias",
        "vit_torch/vit.py",
        'return self.output["dense"](context), probabilities',
        'return F.linear(context, self.output["dense"].weight), probabilities',
    ),
    Fault(
        "head mask before softmax",
        "vit_torch/vit.py",
        "probabilities = probabilities * head_mask[:, self.heads]",
        "probabilities = (scores + head_mask[:, self.heads]).softmax(-1)",
    ),
    Fault(
        "columns before rows in positions",
        "vit_torch/vit.py",
        '"ri,cj,ijh->rch", rows, columns, grid).flatten(0, 1)',
        '"ri,cj,ijh->crh", rows, columns, grid).flatten(0, 1)',
    ),
    Fault("bicubic a = -0.5", "vit_core/positions.py", "a=-0.75, xp=xp", "a=-0.5, xp=xp"),
    Fault(
        "mask token where kept",
        "vit_torch/vit.py",
        "embeddings * (1 - masked) + self.mask_token * masked",
        "embeddings * masked + self.mask_token * (1 - masked)",
    ),
    Fault(
        "hidden state after the final norm",
        "vit_torch/vit.py",
        "            all_hidden_states.append(hidden_states)\n",
        "            all_hidden_states.insert(0, hidden_states)\n",
    ),
    Fault(
        "pooler on the last token",
        "vit_torch/vit.py",
        "self.dense(hidden_states[:, 0])",
        "self.dense(hidden_states[:, -1])",
    ),
    Fault(
        "classifier on the mean",
        "vit_torch/vit.py",
        "self.classifier(encoded.last_hidden_state[:, 0])",
        "self.classifier(encoded.last_hidden_state.mean(1))",
    ),
    Fault("ignored labels counted", "vit_torch/vit.py", "losses.sum() / kept.sum()", "losses.mean()"),
    Fault(
        "MIM loss over all pixels",
        "vit_torch/vit.py",
        "(error * mask).sum() / (mask.sum() + 1e-5)",
        "error.sum() / (mask.sum() + 1e-5)",
    ),
    Fault("off-by-one mask", "vit_torch/vit_mae.py", "(ids_restore >= kept)", "(ids_restore > kept)"),
    Fault(
        "most noise kept",
        "vit_torch/vit_mae.py",
        "noise.float().argsort(dim=1, stable=True)",
        "noise.float().argsort(dim=1, stable=True, descending=True)",
    ),
    Fault(
        "class token without its position",
        "vit_torch/vit_mae.py",
        "(self.cls_token + positions[:, :1])",
        "self.cls_token",
    ),
    Fault("decoder not unshuffled", "vit_torch/vit_mae.py", "take(shuffled, ids_restore)", "shuffled"),
    Fault(
        "channels before pixels in a patch",
        "vit_torch/vit_mae.py",
        "patches.permute(0, 2, 4, 3, 5, 1).flatten(3)",
        "patches.permute(0, 2, 4, 1, 3, 5).flatten(3)",
    ),
    Fault("biased variance", "vit_torch/vit_mae.py", "correction=1", "correction=0"),
    Fault(
        "loss over kept patches",
        "vit_torch/vit_mae.py",
        "(error * mask).sum() / mask.sum()",
        "(error * (1 - mask)).sum() / mask.sum()",
    ),
]

# The same mistakes in the words of Keras and TensorFlow.
FAULTS += [
    Fault("tanh GELU", "vit_tf/activations.py", "(1 + ops.erf(x * math.sqrt(0.5)))", "(1 + ops.tanh(x * 0.85))"),
    Fault("softmax scale forgotten", "vit_tf/vit.py", "(0, 1, 3, 2))) * self.head_dim**-0.5", "(0, 1, 3, 2)))"),
    Fault("sdpa scale forgotten", "vit_tf/vit.py", "query = query * self.head_dim**-0.5", "query = query * 1.0"),
    Fault(
        "query and key swapped",
        "vit_tf/vit.py",
        'for name in ("query", "key", "value")\n        )  #',
        'for name in ("key", "query", "value")\n        )  #',
    ),
    Fault(
        "default LayerNorm epsilon",
        "vit_tf/vit.py",
        'self.layernorm_after = nn.layer_norm(hidden_size, config.layer_norm_eps, "',
        'self.layernorm_after = nn.layer_norm(hidden_size, 1e-3, "',
    ),
    Fault(
        "norms swapped",
        "vit_tf/vit.py",
        "self.layernorm_before(hidden_states), head_mask",
        "self.layernorm_after(hidden_states), head_mask",
    ),
    Fault(
        "post-norm residual",
        "vit_tf/vit.py",
        'self.intermediate["dense"](self.layernorm_after(hidden_states))',
        'self.intermediate["dense"](hidden_states)',
    ),
    Fault(
        "lost output bias",
        "vit_tf/vit.py",
        'return self.attention_output["dense"](context), probabilities',
        'return ops.matmul(context, self.attention_output["dense"].kernel), probabilities',
    ),
    Fault(
        "head mask before softmax",
        "vit_tf/vit.py",
        "probabilities = probabilities * ops.take(head_mask, self.heads, axis=1)",
        "probabilities = ops.softmax(scores + ops.take(head_mask, self.heads, axis=1))",
    ),
    Fault(
        "columns before rows in positions",
        "vit_tf/vit.py",
        '"ri,cj,ijh->rch", rows, columns, grid)',
        '"ri,cj,ijh->crh", rows, columns, grid)',
    ),
    Fault(
        "mask token where kept",
        "vit_tf/vit.py",
        "embeddings * (1 - masked) + self.mask_token * masked",
        "embeddings * masked + self.mask_token * (1 - masked)",
    ),
    Fault(
        "hidden state after the final norm",
        "vit_tf/vit.py",
        "            all_hidden_states.append(hidden_states)\n",
        "            all_hidden_states.insert(0, hidden_states)\n",
    ),
    Fault(
        "pooler on the last token",
        "vit_tf/vit.py",
        "self.dense(hidden_states[:, 0])",
        "self.dense(hidden_states[:, -1])",
    ),
    Fault(
        "classifier on the mean",
        "vit_tf/vit.py",
        "features = encoded.last_hidden_state[:, 0]",
        "features = ops.mean(encoded.last_hidden_state, axis=1)",
    ),
    Fault(
        "ignored labels counted",
        "vit_tf/layers.py",
        "ops.sum(losses) / ops.cast(ops.count_nonzero(kept), losses.dtype)",
        "ops.mean(losses)",
    ),
    Fault(
        "MIM loss over all pixels",
        "vit_tf/vit.py",
        "ops.sum(error * mask) / (ops.sum(mask) + 1e-5)",
        "ops.sum(error) / (ops.sum(mask) + 1e-5)",
    ),
    Fault(
        "pixels shuffled as tf.nn.depth_to_space does",
        "vit_tf/layers.py",
        "(batch, rows, columns, channels, step, step))\n        pixels = ops.transpose(pixels, (0, 3, 1, 4, 2, 5))",
        "(batch, rows, columns, step, step, channels))\n        pixels = ops.transpose(pixels, (0, 5, 1, 3, 2, 4))",
    ),
    Fault("off-by-one mask", "vit_tf/vit_mae.py", "ids_restore >= kept", "ids_restore > kept"),
    Fault(
        "most noise kept",
        "vit_tf/vit_mae.py",
        'tf.argsort(noise, axis=1, direction="ASCENDING"',
        'tf.argsort(noise, axis=1, direction="DESCENDING"',
    ),
    Fault(
        "class token without its position",
        "vit_tf/vit_mae.py",
        "ops.cast(self.cls_token, self.compute_dtype) + positions[:, :1]",
        "ops.cast(self.cls_token, self.compute_dtype)",
    ),
    Fault("decoder not unshuffled", "vit_tf/vit_mae.py", "take(shuffled, ids_restore)", "shuffled"),
    Fault("biased variance", "vit_tf/vit_mae.py", "/ (target.shape[-1] - 1)", "/ target.shape[-1]"),
    Fault(
        "loss over kept patches",
        "vit_tf/vit_mae.py",
        "ops.sum(error * mask) / ops.sum(mask)",
        "ops.sum(error * (1 - mask)) / ops.sum(mask)",
    ),
    Fault(
        "channels before pixels in a patch",
        "vit_tf/vit_mae.py",
        "ops.transpose(patches, (0, 2, 4, 3, 5, 1))",
        "ops.transpose(patches, (0, 2, 4, 1, 3, 5))",
    ),
]

# And in those of JAX and Linen.
FAULTS += [
    Fault(
        "tanh GELU",
        "vit_flax/activations.py",
        "return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))",
        "return gelu_tanh(x)",
    ),
    Fault("fast variance", "vit_flax/layers.py", "use_fast_variance=False", "use_fast_variance=True"),
    Fault(
        "softmax scale forgotten", "vit_flax/vit.py", "key.swapaxes(2, 3)) * self.head_dim**-0.5", "key.swapaxes(2, 3))"
    ),
    Fault(
        "kernel scale of the whole width",
        "vit_flax/vit.py",
        "scale = self.head_dim**-0.5",
        "scale = self.hidden_size**-0.5",
    ),
    Fault(
        "query and key swapped",
        "vit_flax/vit.py",
        'for name in ("query", "key", "value")\n        )  #',
        'for name in ("key", "query", "value")\n        )  #',
    ),
    Fault("default LayerNorm epsilon", "vit_flax/layers.py", "epsilon=config.layer_norm_eps", "epsilon=1e-3"),
    Fault(
        "norms swapped",
        "vit_flax/vit.py",
        "self.layernorm_before(hidden_states), head_mask",
        "self.layernorm_after(hidden_states), head_mask",
    ),
    Fault(
        "post-norm residual",
        "vit_flax/vit.py",
        'self.intermediate["dense"](self.layernorm_after(hidden_states))',
        'self.intermediate["dense"](hidden_states)',
    ),
    Fault(
        "lost bias",
        "vit_flax/layers.py",
        "        units,\n        use_bias=use_bias,",
        "        units,\n        use_bias=False,",
    ),
    Fault(
        "head mask before softmax",
        "vit_flax/vit.py",
        "probabilities = probabilities * head_mask[:, jnp.asarray(self.heads)]",
        "probabilities = jax.nn.softmax(scores + head_mask[:, jnp.asarray(self.heads)])",
    ),
    Fault(
        "columns before rows in positions",
        "vit_flax/vit.py",
        '"ri,cj,ijh->rch", rows, columns, grid)',
        '"ri,cj,ijh->crh", rows, columns, grid)',
    ),
    Fault(
        "mask token where kept",
        "vit_flax/vit.py",
        "embeddings * (1 - masked) + self.mask_token * masked",
        "embeddings * masked + self.mask_token * (1 - masked)",
    ),
    Fault(
        "hidden state after the final norm",
        "vit_flax/vit.py",
        "            all_hidden_states.append(hidden_states)\n",
        "            all_hidden_states.insert(0, hidden_states)\n",
    ),
    Fault(
        "pooler on the last token",
        "vit_flax/vit.py",
        "self.dense(hidden_states[:, 0])",
        "self.dense(hidden_states[:, -1])",
    ),
    Fault(
        "classifier on the mean",
        "vit_flax/vit.py",
        "features = encoded.last_hidden_state[:, 0]",
        "features = encoded.last_hidden_state.mean(axis=1)",
    ),
    Fault(
        "ignored labels counted",
        "vit_flax/layers.py",
        "losses.sum() / kept.sum().astype(logits.dtype)",
        "losses.mean()",
    ),
    Fault(
        "MIM loss over all pixels",
        "vit_flax/vit.py",
        "(error * mask).sum() / (mask.sum() + 1e-5)",
        "error.sum() / (mask.sum() + 1e-5)",
    ),
    Fault(
        "pixels shuffled with the channels last",
        "vit_flax/layers.py",
        "(batch, rows, columns, channels, step, step)\n    return pixels.transpose(0, 3, 1, 4, 2, 5)",
        "(batch, rows, columns, step, step, channels)\n    return pixels.transpose(0, 5, 1, 3, 2, 4)",
    ),
    Fault("off-by-one mask", "vit_flax/vit_mae.py", "ids_restore >= kept", "ids_restore > kept"),
    Fault(
        "most noise kept",
        "vit_flax/vit_mae.py",
        "jnp.argsort(noise, axis=1, stable=True, descending=False)",
        "jnp.argsort(noise, axis=1, stable=True, descending=True)",
    ),
    Fault(
        "class token without its position", "vit_flax/vit_mae.py", "self.cls_token + positions[:, :1]", "self.cls_token"
    ),
    Fault("decoder not unshuffled", "vit_flax/vit_mae.py", "take(shuffled, ids_restore)", "shuffled"),
    Fault("biased variance", "vit_flax/vit_mae.py", "ddof=1", "ddof=0"),
    Fault(
        "loss over kept patches",
        "vit_flax/vit_mae.py",
        "(error * mask).sum() / mask.sum()",
        "(error * (1 - mask)).sum() / mask.sum()",
    ),
    Fault(
        "channels before pixels in a patch",
        "vit_flax/vit_mae.py",
        ".transpose(0, 2, 4, 3, 5, 1)",
        ".transpose(0, 2, 4, 1, 3, 5)",
    ),
]


def plant(fault: Fault, scratch: Path) -> int:
    """Copies the project to `scratch` with the fault in it; returns the line it stands on."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, scratch / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", scratch)
    text = (scratch / fault.file).read_text()
    if text.count(fault.old) != 1:
        raise SystemExit(f"{fault.what}: expected once in {fault.file}: {fault.old!r}")
    (scratch / fault.file).write_text(text.replace(fault.old, fault.new))
    return text[: text.index(fault.old)].count("\n") + 1


def is_caught(fault: Fault, scratch: Path) -> bool:
    """Whether the suite fails on the copy."""
    suite = SUITES[fault.file.partition("/")[0]]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *suite]
    environment = {**os.environ, "PYTHONPATH": str(scratch), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: tests failed. Anything else: they did not run
        raise SystemExit(f"{fault.what}: the tests did not run:\n{done.stdout[-2000:]}")
    return done.returncode == 1


def by_chance(package: str, count: int, seed: int) -> list[Fault]:
    """Faults at tokens that chance picks: another operator, a number that is one more."""
    places = []
    for file in (f"{package}/vit.py", f"{package}/vit_mae.py"):
        text = (ROOT / file).read_text()
        lines = [*text.splitlines(), ""]  # the end has a line of its own
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            line = lines[token.start[0] - 1]
            is_code = (
                not line.lstrip().startswith(("def ", "class ", "import ", "from ", "raise ", "@")) and '"' not in line
            )
            new = OTHERS.get(token.string) if token.type == tokenize.OP else None
            new = str(int(token.string) + 1) if token.type == tokenize.NUMBER and token.string.isdecimal() else new
            if new and is_code and token.line.strip() == line.strip() and lines.count(line) == 1 and "->" not in line:
                mutant = line[: token.start[1]] + new + line[token.end[1] :]
                places.append(Fault(f"`{line.strip()}` with {new} for {token.string}", file, line, mutant))
    return random.Random(seed).sample(places, count)


def chosen(packages: list[str], each: int | None) -> list[Fault]:
    """The faults of some packages, or of all; or a few of each, by the day, so that all have a turn."""
    by_package: dict[str, list[Fault]] = {}
    for fault in FAULTS:
        by_package.setdefault(fault.file.partition("/")[0], []).append(fault)
    found = []
    for package, faults in by_package.items():
        if not packages or package in packages:
            day = date.today().toordinal()
            count = len(faults) if each is None else min(each, len(faults))
            found += [faults[(day * count + i) % len(faults)] for i in range(count)]
    return found


def main() -> None:
    """Prints one row per fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", nargs="*", metavar="PACKAGE")
    parser.add_argument("--random", type=int, metavar="N", help="so many of every backend, picked by chance instead")
    parser.add_argument("--seed", type=int, default=0, help="of that chance (%(default)s)")
    parser.add_argument("--each", type=int, metavar="N", help="so many of every package")
    arguments = parser.parse_args()
    survivors = 0
    print("| fault | line | caught |\n| --- | --- | --- |")
    backends = [name for name in ("vit_torch", "vit_tf", "vit_flax") if name in (arguments.packages or SUITES)]
    faults = chosen(arguments.packages, arguments.each)
    if arguments.random is not None:
        faults = [fault for name in backends for fault in by_chance(name, arguments.random, arguments.seed)]
    for fault in faults:
        with tempfile.TemporaryDirectory() as folder:
            line = plant(fault, Path(folder))
            caught = is_caught(fault, Path(folder))
        survivors += not caught
        print(f"| {fault.what} | {fault.file}:{line} | {'yes' if caught else 'NO'} |", flush=True)
    sys.exit(survivors > 0)


if __name__ == "__main__":
    main()
