"""Every public name of transformers' models is there in ours, or is left out by decision."""

import torch
import transformers
from cases import FIELDS, SIZES, main, make_model

from vit_torch.familiar import LEFT_OUT


def undecided(folder):
    """Names of theirs that ours neither have nor leave out with a word of what to write."""
    found = {}
    for name, fields in FIELDS.items():
        cls = getattr(transformers, name)
        theirs, ours = cls(cls.config_class(**SIZES, **fields)), make_model(name)
        names = {attribute for attribute in dir(theirs) if not attribute.startswith("_")}
        names -= {*dir(torch.nn.Module()), *dir(ours), *LEFT_OUT}
        if names:
            found[name] = sorted(names)
    return found


if __name__ == "__main__":
    main(globals())
