"""Which tests run every day, and which are left to `make test-long`.

A test over many sizes, dtypes or classes names the cases that it runs every day; the others get the mark `long`:

    @pytest.mark.every_day("[torch", "tf ViTModel")

A case is named by words that all stand in its id, in brackets: here every class in PyTorch, and one in TensorFlow.
Every promise keeps a case of every day for each backend.
"""

import pytest


def mark_what_is_long(items: list[pytest.Item]) -> dict[str, list[str]]:
    """Gives the mark `long` to cases that their test does not name: test -> what it names and has no case for."""
    unknown: dict[str, dict[str, None]] = {}
    for item in items:
        if (mark := item.get_closest_marker("every_day")) is None:
            continue
        case = f"[{item.callspec.id}]"
        named = [words for words in mark.args if all(word in case for word in words.split())]
        left = unknown.setdefault(item.nodeid.partition("[")[0], dict.fromkeys(mark.args))
        for words in named:
            left.pop(words, None)
        if not named:
            item.add_marker("long")
    return {test: [*left] for test, left in unknown.items() if left}
