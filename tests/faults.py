"""The faults that `mutate.py` plants: mistakes that real ports of these models have made, in every backend's words."""

from typing import NamedTuple


class Edit(NamedTuple):
    """A fault in one file.

    Attributes:
        file: that it goes into.
        old: text that stands there exactly once.
        new: what takes its place.
        tests: arguments of pytest, where the fast set of the package is not meant to see it.
    """

    file: str
    old: str
    new: str
    tests: str = ""


def one(file: str, old: str, new: str, tests: str = "") -> tuple[Edit, ...]:
    """A fault in one place."""
    return (Edit(file, old, new, tests),)


def each(file: str, old: str = "", new: str = "", **words: tuple[str, str]) -> tuple[Edit, ...]:
    """One fault in all three backends: in the same words, but where a backend has its own."""
    return tuple(Edit(f"vit_{name}/{file}", *words.get(name, (old, new))) for name in ("torch", "tf", "flax"))


FAULTS = {
    "patches by columns": each(
        "vit.py",
        torch=("self.projection(pixel_values).flatten(2)", "self.projection(pixel_values).transpose(2, 3).flatten(2)"),
        tf=(
            "patches = self.projection(ops.transpose(pixel_values, (0, 2, 3, 1)))  #",
            "patches = ops.transpose(self.projection(ops.transpose(pixel_values, (0, 2, 3, 1))), (0, 2, 1, 3))  #",
        ),
        flax=(
            "patches = self.projection(pixel_values.transpose(0, 2, 3, 1))  #",
            "patches = self.projection(pixel_values.transpose(0, 2, 3, 1)).swapaxes(1, 2)  #",
        ),
    ),
    "class token behind the patches": each(
        "vit.py",
        torch=(
            "torch.cat((cls_token, embeddings), dim=1)  # (batch, tokens, hidden)",
            "torch.cat((embeddings, cls_token), dim=1)",
        ),
        tf=(
            "ops.concatenate((cls_token, embeddings), axis=1)  # (batch, tokens, hidden)",
            "ops.concatenate((embeddings, cls_token), axis=1)",
        ),
        flax=(
            "jnp.concatenate((cls_token, embeddings), axis=1)  # (batch, tokens, hidden)",
            "jnp.concatenate((embeddings, cls_token), axis=1)",
        ),
    ),
    "mask token where kept": each(
        "vit.py",
        "embeddings * (1 - masked) + self.mask_token * masked",
        "embeddings * masked + self.mask_token * (1 - masked)",
    ),
    "stale position row": each(
        "layers.py",
        "positions[0, first:]",
        "positions[0, : -first or None]",
        torch=("grid = positions[0, first:]", "grid = positions[0, : -first or None]"),
    ),
    "columns before rows in positions": each(
        "layers.py",
        torch=("(columns @ grid).flatten(0, 1)", "(columns @ grid).transpose(0, 1).flatten(0, 1)"),
        tf=("ops.matmul(columns, grid)", "ops.transpose(ops.matmul(columns, grid), (1, 0, 2))"),
        flax=("(columns @ grid)", "(columns @ grid).swapaxes(0, 1)"),
    ),
    "grid of positions taken for a square": each(
        "layers.py", "rows, columns = (axis_matrix(", "old = (old[1], old[0])\n    rows, columns = (axis_matrix("
    ),
    "bicubic a = -0.5": one("vit_core/positions.py", "CUBIC = -0.75", "CUBIC = -0.5"),
    "samples at corners, not at centres": one(
        "vit_core/positions.py",
        "(np.arange(new) + 0.5) * (old / new if scale is None else scale) - 0.5",
        "np.arange(new) * (old / new if scale is None else scale)",
    ),
    "taps past the border lost": one(
        "vit_core/positions.py", "place = np.clip(first + tap, 0, old - 1)[:, None]", "place = (first + tap)[:, None]"
    ),
    "bicubic a = -0.5 in traced programs": one(
        "vit_core/positions.py",
        "_outer(1 + offset, CUBIC)",
        "_outer(1 + offset, -0.5)",
        "tests/vit_torch/test_programs.py -k matrix",
    ),
    "samples at corners in traced programs": (
        Edit(
            "vit_torch/layers.py",
            "(2 * samples + 1) * old + new",
            "2 * samples * old + 2 * new",
            "tests/vit_torch/test_programs.py -k 'one_export and ViTModel'",
        ),
        Edit(
            "vit_tf/layers.py",
            "(2 * samples + 1) * old + new",
            "2 * samples * old + 2 * new",
            "tests/vit_tf/test_programs.py -k 'one_graph_is_right and TFViTModel'",
        ),
        Edit(
            "vit_flax/layers.py",
            "(2 * samples + 1) * old + new",
            "2 * samples * old + 2 * new",
            "tests/vit_flax/test_programs.py -k 'one_export_is_right and FlaxViTModel'",
        ),
    ),
    "native size baked into a program": one(
        "vit_torch/layers.py",
        "if all(map(is_known, sides)) and old == sides:",
        "if old == sides:",
        "tests/vit_torch/test_programs.py -k 'onnx and ViTModel'",
    ),
    "program of one size takes others": one(
        "vit_torch/inputs.py", "if is_fixed:", "if is_fixed and False:", "tests/vit_torch/test_programs.py -k refuses"
    ),
    "ties turned round in traced programs": one(
        "vit_torch/layers.py",
        "(places < places[:, None])",
        "(places > places[:, None])",
        "tests/vit_torch/test_programs.py -k order",
    ),
    "query and key swapped": each(
        "vit.py",
        'for name in ("query", "key", "value")\n        )  #',
        'for name in ("key", "query", "value")\n        )  #',
    ),
    "softmax scale forgotten": each(
        "vit.py",
        torch=("transpose(2, 3)) * self.head_dim**-0.5", "transpose(2, 3))"),
        tf=("(0, 1, 3, 2))) * self.head_dim**-0.5", "(0, 1, 3, 2)))"),
        flax=("key.swapaxes(2, 3)) * self.head_dim**-0.5", "key.swapaxes(2, 3))"),
    ),
    "kernel's scale wrong": (
        Edit("vit_torch/vit.py", "scale=self.head_dim**-0.5", "scale=query[0].numel() ** -0.5"),
        Edit("vit_tf/vit.py", "query * self.head_dim**-0.5, key", "query, key"),
        Edit("vit_flax/vit.py", "query * self.head_dim**-0.5, key", "query, key"),
    ),
    "softmax in the dtype of the computation": (
        Edit(
            "vit_torch/vit.py",
            "dtype=at_least_float32(scores.dtype)",
            "dtype=scores.dtype",
            "tests/vit_torch/test_model.py -k softmax",
        ),
        Edit(
            "vit_tf/vit.py",
            "ops.cast(scores, at_least_float32(scores.dtype))",
            "scores",
            "tests/vit_tf/test_training.py -k softmax",
        ),
        Edit(
            "vit_flax/vit.py",
            "scores.astype(at_least_float32(scores.dtype))",
            "scores",
            "tests/vit_flax/test_model.py -k softmax",
        ),
    ),
    "dropout of attention shared by images and heads": (
        Edit(
            "vit_torch/vit.py",
            "F.dropout(probabilities, p=dropout_prob)",
            "probabilities * F.dropout(torch.ones_like(probabilities[:1, :1]), p=dropout_prob)",
            "tests/behaviour -k '[torch and attention_dropout'",
        ),
        Edit(
            "vit_tf/vit.py",
            "self.dropout(ops.cast(probabilities, query.dtype))",
            "ops.cast(probabilities, query.dtype) * self.dropout(ops.ones_like(query[:1, :1, :, :1]))",
            "tests/behaviour -k '[tf and attention_dropout'",
        ),
        Edit(
            "vit_flax/layers.py",
            "broadcast_dims=()",
            "broadcast_dims=(0, 1)",
            "tests/behaviour -k '[flax and attention_dropout'",
        ),
    ),
    "scale of the branches that are kept lost": each(
        "layers.py",
        torch=(".to(branch.dtype) / (1 - self.rate)", ".to(branch.dtype)"),
        tf=("branch.dtype) / (1 - self.rate)", "branch.dtype)"),
        flax=(".astype(branch.dtype) / (1 - self.rate)", ".astype(branch.dtype)"),
    ),
    "attention left out where the MLP should be": each("vit.py", "left_out[1]", "left_out[0]"),
    "branches drawn for the whole batch": (
        Edit(
            "vit_torch/layers.py",
            "torch.rand(branch.shape[0], device=branch.device)",
            "torch.rand(1, device=branch.device)",
            "tests/behaviour -k '[torch and drawn_one_by_one'",
        ),
        Edit(
            "vit_tf/layers.py",
            "stateless_uniform(ops.shape(branch)[:1],",
            "stateless_uniform((1,),",
            "tests/behaviour -k '[tf and drawn_one_by_one'",
        ),
        Edit(
            "vit_flax/layers.py",
            "self.rate, branch.shape[:1])",
            "self.rate, (1,))",
            "tests/behaviour -k '[flax and drawn_one_by_one'",
        ),
    ),
    "branches left out in evaluation": (
        Edit(
            "vit_torch/layers.py",
            "if not self.training or self.rate == 0:",
            "if self.rate == 0:",
            "tests/behaviour -k '[torch and evaluation_leaves'",
        ),
        Edit(
            "vit_tf/layers.py",
            "            if not training or self.rate == 0:\n                return branch",
            "            if self.rate == 0:\n                return branch",
            "tests/behaviour -k '[tf and evaluation_leaves'",
        ),
        Edit(
            "vit_flax/layers.py",
            "if deterministic or self.rate == 0:",
            "if self.rate == 0:",
            "tests/behaviour -k '[flax and evaluation_leaves'",
        ),
    ),
    "head mask before softmax": each(
        "vit.py",
        torch=(
            "probabilities = probabilities * head_mask[:, self.heads]",
            "probabilities = (scores + head_mask[:, self.heads]).softmax(-1)",
        ),
        tf=(
            "probabilities = probabilities * ops.take(head_mask, self.heads, axis=1)",
            "probabilities = ops.softmax(scores + ops.take(head_mask, self.heads, axis=1))",
        ),
        flax=(
            "probabilities = probabilities * head_mask[:, jnp.asarray(self.heads)]",
            "probabilities = jax.nn.softmax(scores + head_mask[:, jnp.asarray(self.heads)])",
        ),
    ),
    "no attentions from the kernel": (
        Edit("vit_torch/vit.py", "head_mask is None and not output_attentions:", "head_mask is None:"),
        *(
            Edit(
                f"{package}/vit.py",
                "head_mask is None and not output_attentions and not drops:",
                "head_mask is None and not drops:",
            )
            for package in ("vit_tf", "vit_flax")
        ),
    ),
    "lost bias": (
        Edit(
            "vit_torch/vit.py",
            'return self.output["dense"](context), probabilities',
            'return F.linear(context, self.output["dense"].weight), probabilities',
        ),
        Edit(
            "vit_tf/vit.py",
            'return self.attention_output["dense"](context), probabilities',
            'return ops.matmul(context, self.attention_output["dense"].kernel), probabilities',
        ),
        Edit(
            "vit_flax/layers.py",
            "        units,\n        use_bias=use_bias,",
            "        units,\n        use_bias=False,",
        ),
    ),
    "norms swapped": each(
        "vit.py", "self.layernorm_before(hidden_states), head_mask", "self.layernorm_after(hidden_states), head_mask"
    ),
    "default LayerNorm epsilon": (
        Edit(
            "vit_torch/vit.py",
            "self.layernorm_after = nn.LayerNorm(hidden_size, eps=config.layer_norm_eps)",
            "self.layernorm_after = nn.LayerNorm(hidden_size)",
        ),
        Edit(
            "vit_tf/vit.py",
            "self.layernorm_after = nn.layer_norm(hidden_size, eps=config.layer_norm_eps)",
            "self.layernorm_after = nn.layer_norm(hidden_size, eps=1e-3)",
        ),
        Edit("vit_flax/layers.py", "epsilon=config.layer_norm_eps", "epsilon=1e-3"),
    ),
    "variance in one pass": one(
        "vit_flax/layers.py",
        "use_fast_variance=False",
        "use_fast_variance=True",
        "tests/vit_flax/test_parity.py -k large_mean",
    ),
    "post-norm residual": each(
        "vit.py",
        'self.intermediate["dense"](self.layernorm_after(hidden_states))',
        'self.intermediate["dense"](hidden_states)',
    ),
    "tanh GELU": each(
        "activations.py",
        torch=('approximate="none"', 'approximate="tanh"'),
        tf=("return 0.5 * x * (1 + ops.erf(x * math.sqrt(0.5)))", "return gelu_tanh(x)"),
        flax=("return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))", "return gelu_tanh(x)"),
    ),
    "wrong digit in the approximation of GELU": each(
        "activations.py", "0.7978845608 * x * (1 + 0.044715 *", "0.7978845608 * x * (1 + 0.04471 *"
    ),
    "hidden states in reverse": each(
        "vit.py",
        "all_hidden_states.append(hidden_states)",
        "all_hidden_states.insert(0, hidden_states)",
    ),
    "pooler on the last token": each("vit.py", "self.dense(hidden_states[:, 0])", "self.dense(hidden_states[:, -1])"),
    "classifier on the mean": each(
        "vit.py",
        torch=(
            "self.classifier(encoded.last_hidden_state[:, 0] if",
            "self.classifier(encoded.last_hidden_state.mean(1) if",
        ),
        tf=(
            "self.classifier(encoded.last_hidden_state[:, 0] if",
            "self.classifier(ops.mean(encoded.last_hidden_state, axis=1) if",
        ),
        flax=(
            "self.classifier(encoded.last_hidden_state[:, 0] if",
            "self.classifier(encoded.last_hidden_state.mean(axis=1) if",
        ),
    ),
    "ignored labels counted": each(
        "layers.py",
        torch=("losses.sum() / kept.sum()", "losses.mean()"),
        tf=("ops.sum(losses) / ops.cast(ops.count_nonzero(kept), losses.dtype)", "ops.mean(losses)"),
        flax=("losses.sum() / kept.sum().astype(logits.dtype)", "losses.mean()"),
    ),
    "label out of range counted as certain": (
        Edit(
            "vit_torch/layers.py",
            "torch.where(kept, torch.nan, 0.0)",
            "torch.where(kept, 0.0, 0.0)",
            "tests/vit_torch/test_model.py -k out_of_range",
        ),
        Edit(
            "vit_tf/layers.py",
            'ops.where(kept, float("nan"), 0.0)',
            "ops.where(kept, 0.0, 0.0)",
            "tests/vit_tf/test_model.py -k out_of_range",
        ),
        Edit(
            "vit_flax/layers.py",
            "jnp.where(kept, jnp.nan, 0.0)",
            "jnp.where(kept, 0.0, 0.0)",
            "tests/vit_flax/test_model.py -k out_of_range",
        ),
    ),
    "loss in the dtype of the computation": (
        Edit(
            "vit_torch/vit.py",
            "logits = logits.to(at_least_float32(logits.dtype))",
            "logits = logits.to(logits.dtype)",
            "tests/vit_torch/test_model.py tests/behaviour -k '(vit_torch or [torch) and (half_precision or losses)'",
        ),
        Edit(
            "vit_tf/vit.py",
            "logits = ops.cast(logits, at_least_float32(logits.dtype))",
            "logits = ops.cast(logits, logits.dtype)",
            "tests/vit_tf/test_model.py tests/behaviour -k '(vit_tf or [tf) and (half_precision or losses)'",
        ),
        Edit(
            "vit_flax/vit.py",
            "logits = logits.astype(at_least_float32(logits.dtype))",
            "logits = logits.astype(logits.dtype)",
            "tests/vit_flax/test_model.py tests/behaviour -k '(vit_flax or [flax) and (half_precision or losses)'",
        ),
    ),
    "channels after pixels in the head that paints": (
        Edit(
            "vit_tf/layers.py",
            "(batch, rows, columns, channels, step, step))\n        pixels = ops.transpose(pixels, (0, 3, 1, 4, 2, 5))",
            "(batch, rows, columns, step, step, channels))\n        pixels = ops.transpose(pixels, (0, 5, 1, 3, 2, 4))",
        ),
        Edit(
            "vit_flax/layers.py",
            "(batch, rows, columns, channels, step, step)\n        return pixels.transpose(0, 3, 1, 4, 2, 5)",
            "(batch, rows, columns, step, step, channels)\n        return pixels.transpose(0, 5, 1, 3, 2, 4)",
        ),
    ),
    "loss of masked image modelling over all pixels": each(
        "layers.py",
        "(error * mask).sum() / (mask.sum() + 1e-5)",
        "error.sum() / (mask.sum() + 1e-5)",
        tf=("ops.sum(error * mask) / (ops.sum(mask) + 1e-5)", "ops.sum(error) / (ops.sum(mask) + 1e-5)"),
    ),
    "off-by-one mask": each(
        "vit_mae.py",
        "ids_restore >= kept",
        "ids_restore > kept",
        torch=("(ids_restore >= kept)", "(ids_restore > kept)"),
    ),
    "most noise kept": (
        Edit("vit_torch/vit_mae.py", "stable_order(masking_noise", "stable_order(-masking_noise"),
        Edit(
            "vit_tf/layers.py",
            'tf.argsort(noise, axis=1, direction="ASCENDING"',
            'tf.argsort(noise, axis=1, direction="DESCENDING"',
        ),
        Edit(
            "vit_flax/layers.py",
            "jnp.argsort(noise, axis=1, stable=True, descending=False)",
            "jnp.argsort(noise, axis=1, stable=True, descending=True)",
        ),
    ),
    "noise compared in its own dtype": each(
        "layers.py",
        torch=("return noise.float() *", "return noise *"),
        tf=('noise, patches = ops.cast(noise, "float32"),', "noise, patches = ops.copy(noise),"),
        flax=("noise = noise.astype(jnp.float32)", "noise = noise.astype(noise.dtype)"),
    ),
    "kept patches rounded up": one(
        "vit_core/masking.py",
        "kept = int(patches * (1 - float(mask_ratio))) if",
        "kept = -int(-patches * (1 - float(mask_ratio)) // 1) if",
    ),
    "class token without its position": each(
        "vit_mae.py",
        torch=("(self.cls_token + positions[:, :1])", "self.cls_token"),
        tf=(
            "ops.cast(self.cls_token, self.compute_dtype) + positions[:, :1]",
            "ops.cast(self.cls_token, self.compute_dtype)",
        ),
        flax=("self.cls_token + positions[:, :1]", "self.cls_token"),
    ),
    "decoder not unshuffled": each("vit_mae.py", "take(shuffled, ids_restore)", "shuffled"),
    "positions of the decoder not resized": each(
        "vit_mae.py",
        torch=(
            "return resized_positions(table, (1, table.shape[1] - 1), Grid(1, patches))",
            "return table[:, [min(i, table.shape[1] - 1) for i in range(patches + 1)]]",
        ),
        tf=(
            "return nn.resized_positions(table, (1, table.shape[1] - 1), Grid(1, patches))",
            "return ops.take(table, [min(i, table.shape[1] - 1) for i in range(patches + 1)], axis=1)",
        ),
        flax=(
            "return nn.resized_positions(table, (1, table.shape[1] - 1), Grid(1, patches))",
            "return table[:, jnp.asarray([min(i, table.shape[1] - 1) for i in range(patches + 1)])]",
        ),
    ),
    "decoder without its last norm": each("vit_mae.py", "self.decoder_norm(hidden_states)", "hidden_states"),
    "channels before pixels in a patch": each(
        "vit_mae.py",
        torch=("patches.permute(0, 2, 4, 3, 5, 1).flatten(3)", "patches.permute(0, 2, 4, 1, 3, 5).flatten(3)"),
        tf=("ops.transpose(patches, (0, 2, 4, 3, 5, 1))", "ops.transpose(patches, (0, 2, 4, 1, 3, 5))"),
        flax=(".transpose(0, 2, 4, 3, 5, 1)", ".transpose(0, 2, 4, 1, 3, 5)"),
    ),
    "biased variance": each(
        "vit_mae.py",
        torch=("correction=1", "correction=0"),
        tf=("/ (target.shape[-1] - 1)", "/ target.shape[-1]"),
        flax=("ddof=1", "ddof=0"),
    ),
    "loss over kept patches": each(
        "vit_mae.py",
        "(error * mask).sum() / mask.sum()",
        "(error * (1 - mask)).sum() / mask.sum()",
        tf=("ops.sum(error * mask) / ops.sum(mask)", "ops.sum(error * (1 - mask)) / ops.sum(mask)"),
    ),
    "fresh weights cut at two deviations": (
        Edit(
            "vit_torch/weights.py",
            "a=-2.0, b=2.0",
            "a=-2 * value, b=2 * value",
            "tests/behaviour -k '[torch and cut_at_two'",
        ),
        Edit(
            "vit_tf/weights.py",
            "inside = math.erf(2 / (deviation * math.sqrt(2)))",
            "inside = math.erf(2 / math.sqrt(2))",
            "tests/behaviour -k '[tf and cut_at_two'",
        ),
        Edit(
            "vit_flax/layers.py",
            "jax.random.truncated_normal(key, -2 / value, 2 / value, shape, dtype)",
            "jax.random.truncated_normal(key, -2, 2, shape, dtype)",
            "tests/behaviour -k '[flax and cut_at_two'",
        ),
    ),
    "fresh positions of the decoder zero": one(
        "vit_core/parameters.py",
        '_SINCOS = Initialiser("sincos")',
        "_SINCOS = _ZEROS",
        "tests/vit_core/test_parameters.py",
    ),
    "fresh patch projection as any other": one(
        "vit_core/parameters.py",
        'return Initialiser("uniform", math.sqrt(6 / (config.hidden_size + pixels)))',
        "return weights_of(config)",
        "tests/vit_core/test_parameters.py",
    ),
    "pixels divided by 256": one(
        "vit_core/images/steps.py",
        'number("rescale_factor", scale)',
        'number("rescale_factor", scale) * 255 / 256',
        "tests/vit_core/test_image_processing.py",
    ),
    "mean and deviation swapped": one(
        "vit_core/images/steps.py",
        "return (picture - centre) / spread",
        "return (picture - spread) / centre",
        "tests/vit_core/test_image_processing.py",
    ),
    "queries and keys swapped in timm's names": one(
        "conversion/dialects/timm.py", '_QKV = ("query", "key", "value")', '_QKV = ("key", "query", "value")'
    ),
    "kernel axes swapped": one("conversion/layouts.py", '"conv": (3, 2, 0, 1)', '"conv": (3, 2, 1, 0)'),
    "output projection not transposed": one(
        "conversion/layouts.py",
        'dict.fromkeys(("linear", "heads_in", "heads_out"), (1, 0))',
        'dict.fromkeys(("linear", "heads_in"), (1, 0))',
    ),
    "head_dim before heads": one(
        "conversion/layouts.py",
        "return array.reshape(len(array), -1)",
        "return array.transpose(0, 2, 1).reshape(len(array), -1)",
    ),
    "LayerScale by columns": one(
        "conversion/folds.py",
        ".reshape(-1, *[1] * (len(tensor.shape) - 1))",
        ".reshape(*[1] * (len(tensor.shape) - 1), -1)[..., : tensor.shape[-1]]",
    ),
    "BatchNorm's mean forgotten": one(
        "conversion/dialects/timm.py",
        "bias.read() - new_weight() @ mean.read().astype(np.float64)",
        "bias.read().astype(np.float64)",
    ),
    "first layer of Keras taken for the second": one("conversion/naming.py", 'number or "0"', 'number or "1"'),
    "Google's GELU taken for the exact one": one(
        "conversion/dialects/google.py", '"hidden_act": "gelu_pytorch_tanh"', '"hidden_act": "gelu"'
    ),
    "class row of zeros behind the patches": one(
        "conversion/folds.py",
        "np.concatenate([np.zeros((shape[0], 1, shape[2]), table.dtype), table.read()], axis=1)",
        "np.concatenate([table.read(), np.zeros((shape[0], 1, shape[2]), table.dtype)], axis=1)",
    ),
}
