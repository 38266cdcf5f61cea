"""vit.py and vit_mae.py of the three backends are one text in three frameworks' words: how much of it is the same."""

import re
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BACKENDS = ("torch", "tf", "flax")
SHARES = {  # of lines that are the same; CONTRIBUTING says what stands against more
    "vit.py": {("torch", "tf"): 0.78, ("torch", "flax"): 0.66, ("tf", "flax"): 0.68},
    "vit_mae.py": {("torch", "tf"): 0.79, ("torch", "flax"): 0.68, ("tf", "flax"): 0.69},
}
WORDS = {  # a framework's word -> the one that stands for it here
    r"\b(TF|Flax)(?=ViT)": "",
    r"\b(ViT|ViTMAE|ViTPreTrained)Module\b": r"\1Model",
    r"\b(ViT\w+)Module\b": r"\1",
    r"\bvit_(torch|tf|flax)\b": "vit_x",
    r"\bdef (forward|call|__call__)\b": "def forward",
    r"\bArray\b": "Tensor",
    r"\b(jax\.nn|jnp|nn|F|torch|tf|ops|layers)\.(?=[\w])": "",
    r"\bLinear\b": "linear",
    r"\bLayerNorm\b": "layer_norm",
    r"\bDropout\b": "dropout",
    r"\b(cat|concatenate)\(": "concatenate(",
    r"\bdim=": "axis=",
    r"\bkeepdim=": "keepdims=",
    r"\bParameter\(empty\(([^()]+)\)": r"parameter((\1)",
    r"\brequires_grad=": "trainable=",
    r"\bcast\(([\w. >=]+), ": r"\1.to(",
    r"\((ids_restore >= kept)\)": r"\1",
    r"(?<!\.)\breshape\((\w+), ": r"\1.reshape(",
    r"(?<!\.)\btranspose\((\w+), \(([\d, ]+)\)\)": r"\1.transpose(\2)",
    r"(?<!\.)\bshape\((\w+)\)": r"\1.shape",
    r"\.astype\(": ".to(",
    r"\bself\.training\b": "training",
    r", dtype=head_dtype\(\)": "",
    r"\bself\.(attention|mlp)_output\b": "self.output",  # Keras has an `output` of its own
    r"\bloss_of\b": "loss",  # and a `loss`
    r", (self\.)?dtype(?=[,)])": "",  # Linen's modules are told a dtype, and whether dropouts are off
    r", deterministic(=deterministic)?(?=[,)])": "",
}
NO_WORDS = (  # lines that only one framework needs
    r"@(SERIALISABLE|documented|nowrap)",
    r"__call__: Callable\[.*",
    r"(training|deterministic): bool = (False|True),",
    r'"""Makes the parts\."""',
    r"(with self\._building\(\):|self\._initialise\(\)|config = self\.config)",
)
# How a class is told its sizes: by arguments, or by the fields of a dataclass.
CONSTRUCTOR = r"    def (__init__\(.*?\) -> None:\n(        super\(\).__init__\([^\n]*\)\n)?|setup\(self\) -> None:\n)"
FIELD = r"^    (\w+): [\w\[\], .]+( = [\w()\"]+)?\n"


def mirrored(backend: str, file: str) -> list[str]:
    """The lines of a file in words that stand for those of every framework."""
    text = (ROOT / f"vit_{backend}" / file).read_text(encoding="utf-8")
    text = re.sub(CONSTRUCTOR, "    def __init__\n", text, flags=re.DOTALL)
    text = re.sub(r'("""[^\n]*?)(\n.*?)?"""', r'\1"""', text, flags=re.DOTALL)  # docstrings: their first lines
    fields = {name for name, _ in re.findall(FIELD, text, flags=re.MULTILINE)} - {"config"}
    text = re.sub(FIELD, "", text, flags=re.MULTILINE)
    text = re.sub(rf"\bself\.({'|'.join(fields or {'-'})})\b", r"\1", text)
    for word, ours in WORDS.items():
        text = re.sub(word, ours, text)
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not any(re.fullmatch(word, line) for word in NO_WORDS)]


@pytest.mark.parametrize(("one", "other"), [*combinations(BACKENDS, 2)])
@pytest.mark.parametrize("file", SHARES)
def test_files_are_translations_of_each_other(file, one, other):
    first, second = mirrored(one, file), mirrored(other, file)
    share = SequenceMatcher(None, first, second, autojunk=False).ratio()
    assert share >= SHARES[file][one, other], f"{file}: {share:.3f}"
