"""Damages a sound file in many ways and loads every one: `python conversion_fuzzing.py SEED` prints what happened.

A process of its own, since the library behind HDF5 could crash, and so that memory and forbidden actions can be seen.
"""

import json
import random
import sys
import tempfile
from pathlib import Path

import h5py  # noqa: F401  # which asks the system for its processor when imported
import numpy as np

from conversion import load  # with all that it imports: what one load takes is measured
from vit_core.errors import CheckpointError

GOLDEN = Path(__file__).parent / "golden"
FOREIGN = GOLDEN / "foreign"
SEEDS = {
    "torch": FOREIGN / "deit_plain" / "deit_tiny_patch16_224.pth",
    "torch with more": FOREIGN / "mae_linear_probe_batchnorm" / "checkpoint-89.pth",
    "legacy torch": GOLDEN / "containers" / "legacy.pth",
    "npz": FOREIGN / "google_vit_linen" / "ViT-tiny.npz",
    "deflated npz": FOREIGN / "google_vit_linen" / "ViT-tiny.npz",
    "msgpack": FOREIGN / "flax_vit_cls" / "flax_model.msgpack",
    "h5": FOREIGN / "tf_vit_cls" / "tf_model.h5",
    "keras h5": FOREIGN / "keras_hub_task_weights_h5" / "model.weights.h5",
    "keras": FOREIGN / "keras_hub_task_keras" / "model.keras",
    "safetensors": FOREIGN / "timm_vit_safetensors" / "model.safetensors",
}
HEADS = {"torch": 5, "legacy torch": 5, "torch with more": 3, "safetensors": 4}  # which these files do not tell
EACH = 60  # mutants of a kind
SLACK = 6_000_000  # bytes of memory beside twice the file
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "socket")


def truncated(content, chance):
    return content[: chance.randrange(len(content))]


def flipped(content, chance):
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def header_flipped(content, chance):
    at = chance.randrange(min(len(content), 2000))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def set_to_an_end(content, chance):
    at = chance.randrange(len(content))
    return content[:at] + bytes([chance.choice((0, 127, 128, 255))]) + content[at + 1 :]


def _block(content, chance):
    start = chance.randrange(len(content))
    return start, min(len(content), start + 1 + chance.randrange(200))


def block_deleted(content, chance):
    start, end = _block(content, chance)
    return content[:start] + content[end:]


def block_doubled(content, chance):
    start, end = _block(content, chance)
    return content[:end] + content[start:]


def blocks_swapped(content, chance):
    (a, b), (c, d) = sorted((_block(content, chance), _block(content, chance)))
    return (
        content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:] if b <= c else content[:a] + content[c:]
    )


def huge_number(content, chance):
    at, size = chance.randrange(max(1, len(content) - 8)), chance.choice((2, 4, 8))
    number = chance.choice((2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1, 2 ** (4 * size)))
    return content[:at] + number.to_bytes(size, chance.choice(("little", "big"))) + content[at + size :]


def zeros_inserted(content, chance):
    at = chance.randrange(len(content))
    return content[:at] + bytes(1 + chance.randrange(64)) + content[at:]


def spliced(content, chance):
    other = SEEDS[chance.choice([*SEEDS])].read_bytes()
    return content[: chance.randrange(len(content))] + other[chance.randrange(len(other)) :]


KINDS = (truncated, flipped, header_flipped, set_to_an_end, block_deleted, block_doubled, blocks_swapped)
KINDS += (huge_number, zeros_inserted, spliced)


def seed_content(name, folder):
    if name != "deflated npz":
        return SEEDS[name].read_bytes()
    with np.load(SEEDS[name]) as arrays:
        np.savez_compressed(folder / "deflated.npz", **arrays)
    return (folder / "deflated.npz").read_bytes()


def memory(field):
    """VmSize, VmPeak or VmHWM of this process, in bytes. Mappings and what is never touched count in the first two."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def attempt(path, heads):
    """What became of a file: "loaded", "refused", or what went wrong."""
    before, peak = memory("VmSize"), memory("VmPeak")
    try:
        sidecar = path.with_suffix(".json")
        load(path, config=sidecar if sidecar.exists() else None, **heads)
        outcome = "loaded"
    except CheckpointError as error:
        outcome = "refused" if str(error).count("\n") < 3 and len(str(error)) < 1500 else f"too long: {error}"
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    used = memory("VmPeak") - before if memory("VmPeak") > peak else 0  # within what one before was allowed
    return outcome if used <= 2 * path.stat().st_size + SLACK else f"{used} bytes of memory"


def main(name):
    happened: list[str] = []
    heads = {"num_attention_heads": HEADS[name]} if name in HEADS else {}
    sys.addaudithook(lambda event, args: happened.append(event) if event.startswith(FORBIDDEN) else None)
    counts, wrong = {"loaded": 0, "refused": 0}, []
    with tempfile.TemporaryDirectory() as folder:
        path, content = Path(folder) / "mutant", seed_content(name, Path(folder))
        if (SEEDS[name].parent / "config.json").exists():
            path.with_suffix(".json").write_bytes((SEEDS[name].parent / "config.json").read_bytes())
        path.write_bytes(content)
        sound = attempt(path, heads)
        for kind in KINDS:
            for number in range(EACH):
                path.unlink()
                path.write_bytes(kind(content, random.Random(f"{name} {kind.__name__} {number}")) or b"\0")
                outcome = attempt(path, heads)
                if outcome in counts:
                    counts[outcome] += 1
                else:
                    wrong.append([kind.__name__, number, outcome[:300]])
    peak = memory("VmHWM") // 1024  # getrusage's peak is also that of the process this one was forked from
    print(json.dumps({"sound": sound, **counts, "wrong": wrong, "forbidden": happened, "peak_kb": peak}))


if __name__ == "__main__":
    main(sys.argv[1])
