"""Faults in the options of the family: registers, means, LayerScale, gated MLPs; for `mutate.py`, as faults.py."""

from faults import Edit

_TESTS = {
    name: f"tests/vit_{name}/test_parity.py -k '(outputs or gradients) and (registers or mean or alone or token_and)'"
    for name in ("torch", "tf", "flax")
}


def _each(file: str, old: str, new: str, **words: tuple[str, str]) -> tuple[Edit, ...]:
    """One fault in all three backends: in the same words, but where a backend has its own."""
    return tuple(Edit(f"vit_{name}/{file}", *words.get(name, (old, new)), tests) for name, tests in _TESTS.items())


OPTIONS = {
    "registers in front of the class token": _each(
        "layers.py",
        "(embeddings[:, :first], registers, embeddings[:, first:])",
        "(registers, embeddings[:, :first], embeddings[:, first:])",
    ),
    "registers with the positions of patches": _each(
        "vit.py",
        "with_registers(embeddings + positions, self.register_tokens, self.cls_token)",
        "with_registers(embeddings, self.register_tokens, self.cls_token) + positions[:, :1]",
    ),
    "mean of registers too": _each(
        "layers.py",
        "hidden_states[:, self.first :]",
        "hidden_states[:, 1:]",
        flax=("hidden_states[:, self.config.num_prefix_tokens :]", "hidden_states[:, 1:]"),
    ),
    "a norm before the mean as well": _each(
        "layers.py",
        "config.use_mean_pooling and not config.norm_before_pooling",
        "config.use_mean_pooling and config.norm_before_pooling",
    ),
    "classifier on the class token in spite of the mean": _each(
        "vit.py",
        "encoded.last_hidden_state[:, 0] if pooled is None else pooled)",
        "encoded.last_hidden_state[:, 0])",
    ),
    "the mean in front of the class token": _each(
        "layers.py",
        "(hidden_states[:, 0], pooled)",
        "(pooled, hidden_states[:, 0])",
    ),
    "LayerScale of the attention for the MLP": _each(
        "vit.py",
        "branch = self.layer_scale2(",
        "branch = self.layer_scale1(",
    ),
    "gates and values of SwiGLU exchanged": _each("activations.py", "gates, values =", "values, gates ="),
    "rows of the position table that has no class token shifted": _each(
        "layers.py",
        "first = positions.shape[1] - old[0] * old[1]",
        "first = 1",
    ),
}
