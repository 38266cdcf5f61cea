"""Faults beside the models, for `mutate.py`: in files, the hub, images, conversion and the command line."""

from faults import one

POSITIONS, MASKS = "tests/vit_core/test_positions.py", "tests/vit_core/test_masking.py"
INPUTS, LABELS = "tests/vit_core/test_inputs.py", "tests/vit_core/test_labels.py"
CHECKPOINTS = "tests/vit_core/test_checkpoint.py tests/vit_core/test_checkpoint_folder.py"
SAVING = "tests/vit_core/test_checkpoint_saving.py"
ORDER = "tests/reliability/test_durability.py -k 'not of_a_model'"
JSON = "tests/vit_core/test_jsonfile.py"
IMAGES = "tests/vit_core/test_image_processing.py -k 'not uint16'"
HUB, PUSH = "tests/hub/test_refusals.py tests/vit_core/test_hub.py", "tests/hub/test_push.py -k 'not comes_back_bit'"
DOWNLOADS = "tests/hub/test_downloads.py -k 'interrupted or needed or cached or index_names'"
FITS, REFUSALS = "tests/conversion/test_fit.py", "tests/conversion/test_refusals.py"
CONVERTED, HOSTILE = "tests/conversion/test_convert.py", "tests/conversion/test_hostile_files.py"
PREFIXES = "tests/conversion/test_prefixes.py -k 'not every_prefix and not every_class'"
RELATIVES = "tests/conversion/test_relatives.py"
ADAPTING = "tests/vit_core/test_projections.py"
CLASSIFY, COMMANDS = "tests/vitriad/test_classify.py", "tests/vitriad/test_cli.py"

BESIDE = {
    "sin-cos table resampled": one("vit_core/positions.py", "if is_sincos(table, old):", "if False:", POSITIONS),
    "timm's kernel never widened": one("vit_core/positions.py", "max(old / new, 1.0)", "1.0", POSITIONS),
    "DINO's scale without its tenth": one(
        "vit_core/positions.py", "scale=old / (new + 0.1)", "scale=old / new", POSITIONS
    ),
    "one bit of noise less": one(
        "vit_core/masking.py", "np.uint64(40)) * 2.0**-24", "np.uint64(41)) * 2.0**-23", MASKS
    ),
    "same noise in every step": one(
        "vit_core/masking.py", 'check_seed("step", step)]', 'check_seed("step", step) * 0]', MASKS
    ),
    "same branches left out in every step": one(
        "vit_core/masking.py", '[0, check_seed("step", step), 0, 0]', '[0, check_seed("step", step) * 0, 0, 0]', MASKS
    ),
    "rates of branches counted from 1": one(
        "vit_core/config/base.py",
        "self.drop_path_rate * layer / last",
        "self.drop_path_rate * (layer + 1) / last",
        MASKS,
    ),
    "last axis tested before the first": one(
        "vit_core/inputs.py",
        "channels_last: bool = dims[1] != channels",
        "channels_last: bool = dims[3] == channels",
        INPUTS,
    ),
    "a label of -100 out of range": one(
        "vit_core/inputs.py", "kept = labels[labels != IGNORED_LABEL]", "kept = labels", INPUTS
    ),
    "infinity taken for a number": one(
        "vit_core/inputs.py", "return bool(np.isfinite(total)) or", "return not np.isnan(total) or", INPUTS
    ),
    "first extra class kept": one(
        "vit_core/config/labels.py", "sorted(found) if index >= classes", "sorted(found) if index > classes", LABELS
    ),
    "nesting one level too deep": one(
        "vit_core/files/json.py", "_depth(value) > limits.json_depth", "_depth(value) > limits.json_depth + 1", JSON
    ),
    "keys that stand there twice": one("vit_core/files/json.py", "if key in keys:", "if False:", JSON),
    "digest not compared": one(
        "vit_core/files/manifest.py",
        "if path not in waiting or known.digests(path.name) != [each.result() for each in waiting[path]]:",
        "if path not in waiting:",
        CHECKPOINTS,
    ),
    "shards of one byte less": one("vit_core/files/saving.py", "array.nbytes > room", "array.nbytes >= room", SAVING),
    "weights never synced": one(
        "vit_core/files/saving.py",
        "        file.flush()\n        os.fsync(file.fileno())\n    found = record",
        "        file.flush()\n    found = record",
        ORDER,
    ),
    "folders never synced": one(
        "vit_core/files/atomic_folder.py", "            os.fsync(descriptor)", "            pass", ORDER
    ),
    "new parent folders not synced": one(
        "vit_core/files/atomic_folder.py", "    _sync(path.parent for path in new)\n", "", ORDER
    ),
    "free space not looked at": one(
        "vit_core/files/atomic_folder.py",
        "if (free := shutil.disk_usage(place).free) < _SPACE_FACTOR * size:",
        "if (free := shutil.disk_usage(place).free) < 0:",
        SAVING,
    ),
    "locks that keep nobody out": one(
        "vit_core/files/writers.py", "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH | fcntl.LOCK_NB", SAVING
    ),
    "odd remainder of a crop on the other side": one(
        "vit_core/images/steps.py", "start = (wanted - side + 1) // 2", "start = (wanted - side) // 2", IMAGES
    ),
    "pixels multiplied in float32": one(
        "vit_core/images/steps.py",
        "(picture.astype(np.float64) * number(",
        "(picture.astype(np.float32) * number(",
        IMAGES,
    ),
    "limit of images off by one": one(
        "vit_core/images/batches.py",
        "if index == limits.batch_images:",
        "if index > limits.batch_images:",
        "tests/vit_core/test_image_modes.py",
    ),
    "digest of a download not compared": one("vit_core/hub/download.py", "if digest != etag:", "if False:", HUB),
    "the branch asked for every file": one(
        "vit_core/hub/download.py", "self.commit = self._checked(found, path)", "self._checked(found, path)", DOWNLOADS
    ),
    "replaced weights left on the hub": one(
        "vit_core/hub/upload.py", "for file in sorted(self.replaced)]", "for file in sorted(self.replaced)[:0]]", PUSH
    ),
    "a written card replaced": one("vit_core/hub/upload.py", "if CARD_NAME not in self.files:", "if True:", PUSH),
    "another shape dropped silently": one(
        "conversion/fitting.py", "if not wanted.ignore_mismatched_sizes:", "if False:", FITS
    ),
    "overflow of a cast passes": one(
        "conversion/fitting.py", "not wanted.allow_nonfinite and not np.isfinite(cast).all()", "False", FITS
    ),
    "tables resized by the default kernel": one(
        "conversion/fitting.py", "wanted.grid, wanted.position_kernel)", "wanted.grid)", FITS
    ),
    "distillation token's position kept": one(
        "conversion/folds.py", "np.delete(table, 1, axis=1)", "np.delete(table, 2, axis=1)", REFUSALS
    ),
    "scales of two branches exchanged": one(
        "conversion/folds.py",
        '"attention.output.dense", "layer_scale2.lambda1": "output.dense"',
        '"output.dense", "layer_scale2.lambda1": "attention.output.dense"',
        RELATIVES,
    ),
    "epsilon of Dinov2 and MSN forgotten": one(
        "vit_core/config/relatives.py", "_EPS = 1e-6", "_EPS = 1e-12", RELATIVES
    ),
    "a kernel for larger patches resized as a picture": one(
        "vit_core/projections.py", "np.linalg.pinv(bilinear_matrix(old, new).T)", "bilinear_matrix(old, new)", ADAPTING
    ),
    "channels repeated and not scaled": one("vit_core/projections.py", " * (stored / channels)", "", ADAPTING),
    "size of a folder's images not looked for": one(
        "conversion/loading.py", "bare, said or size)", "bare, size)", "tests/conversion/test_grids.py"
    ),
    "half a word taken for a prefix": one(
        "conversion/towers.py", "if not _is_of_words(encoder):", "if False:", PREFIXES
    ),
    "the first of several models taken": one("conversion/towers.py", "if len(fitting) == 1:", "if fitting:", PREFIXES),
    "a model inside another one is part of it": one(
        "conversion/towers.py", "and not (others and _is_behind(name, others))", "", PREFIXES
    ),
    "a part of a model passes for one": one(
        "conversion/towers.py", "            return prefix + spellings[0]\n", "            pass\n", PREFIXES
    ),
    "a head beside the encoder drawn anew": one(
        "conversion/loading.py", "if beside := heads_beside(", "if [] and heads_beside(", PREFIXES
    ),
    "moments of an optimiser held": one(
        "vit_core/files/msgpack.py", "if key in _STATES:", "if False:", "tests/conversion/test_trained_files.py"
    ),
    "HDF5 file never synced": one("vit_core/files/h5.py", "        os.fsync(file.fileno())\n", "", ORDER),
    "first error of a disk forgotten": one(
        "vit_core/files/h5.py",
        "        careful.check()\n        os.fsync",
        "        os.fsync",
        "tests/reliability/test_faults.py -k hf_tf",
    ),
    "scores not in order": one("vitriad/classify.py", "np.argsort(-scores", "np.argsort(scores", CLASSIFY),
    "softmax for several classes": one(
        "vitriad/classify.py", 'if problem_type == "multi_label_classification":', "if False:", CLASSIFY
    ),
    "skipped images exit with 0": one("vitriad/classify.py", "            status = 3\n", "", CLASSIFY),
    "Ctrl-C exits with 1": one("vitriad/cli.py", "return 130", "return 1", COMMANDS),
    "the branch may move between two reads": one(
        "vitriad/auto.py",
        "{**options, **kwargs, **same_commit(config)}",
        "{**options, **kwargs}",
        "tests/hub/test_downloads.py -k moves",
    ),
}
