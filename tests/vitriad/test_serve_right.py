"""Every answer of `vitriad serve` is the library's, whoever is answered together with it."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from backends import INSTALLED
from serving import ask, serving

import vitriad
from vit_core.tensors import to_numpy
from vitriad import models
from vitriad.classify import probabilities, read_pixels
from vitriad.serving.app import application
from vitriad.serving.batching import BatchLimits
from vitriad.serving.served import open_served
from vitriad.serving.service import ServeLimits, Service
from vitriad.web import WebLimits

FILES = [file.read_bytes() for file in models.digit_files()]
LIMITS = ServeLimits(WebLimits(), BatchLimits(rows=8, delay_seconds=0.02))
INFER, CLASSIFY = "/v2/models/digits-vit/infer", "/classify?top_k=10"
BAD = [(CLASSIFY, b"no image"), (CLASSIFY, FILES[0][:50]), (INFER, b'{"inputs": [{"name": "pixel_values"}]}')]


class Recorded:
    """A model of the server that notes what it was called with and what it returned."""

    def __init__(self, backend):
        served = open_served("digits-vit", backend, tasks=("classify",), any_size=True)
        self.task, self.calls = served.tasks["classify"], []
        self.served = replace(served, tasks={"classify": self.task._replace(run=self.run)})

    def run(self, pixel_values):
        found = self.task.run(pixel_values=pixel_values)
        self.calls.append((pixel_values.copy(), found["logits"]))
        return found

    def rows_of(self, pixels):
        """What was returned for these rows, in every call that had them side by side."""
        found = []
        for given, logits in self.calls:
            if given.shape[1:] == pixels.shape[1:]:
                starts = range(len(given) - len(pixels) + 1)
                same = [i for i in starts if given[i : i + len(pixels)].tobytes() == pixels.tobytes()]
                found += [logits[i : i + len(pixels)] for i in same]
        return found


def tensor(pixels):
    one = {"name": "pixel_values", "datatype": "FP32", "shape": [*pixels.shape], "data": pixels.ravel().tolist()}
    return json.dumps({"inputs": [one]}).encode()


def good_requests(served):
    """(path, body, pixel values) of files, and of pixel values of one to three images in two sizes."""
    read = {i: read_pixels(file, served.processor, served.config)[None] for i, file in enumerate(FILES)}
    asked = [(CLASSIFY, FILES[i], pixels) for i, pixels in read.items()]
    for i in range(40):
        pixels = np.concatenate([read[(i + j) % len(FILES)] for j in range(1 + i % 3)])
        pixels = np.ascontiguousarray(np.pad(pixels, ((0, 0), (0, 0), (0, 4 * (i % 2)), (0, 0)))) * np.float32(0.99)
        asked.append((INFER, tensor(pixels), pixels))
    return asked


@pytest.fixture(scope="module", params=INSTALLED)
def answered(request):
    """A model after many requests at once, good and bad, and what each got."""
    recorded = Recorded(request.param)
    good = good_requests(recorded.served)
    asked = [*good, *((path, body, None) for path, body in BAD * 10)]
    order = np.random.default_rng(0).permutation(len(asked))
    service = Service([recorded.served], LIMITS)
    with serving(lambda port: application(service, port=port), LIMITS.web) as port, ThreadPoolExecutor(24) as clients:
        got = list(clients.map(lambda i: ask(port, asked[i][0], asked[i][1]), order))
    return request.param, recorded, [(asked[i], answer) for i, answer in zip(order, got, strict=True)]


def logits_of(path, content, served):
    """Logits of an answer, or the scores of one that has no logits."""
    said = json.loads(content)
    if path == INFER:
        first = said["outputs"][0]
        return np.array(first["data"], np.float32).reshape(first["shape"])
    order = {label: index for index, label in served.config.id2label.items()}
    scores = sorted((order[row["label"]], row["score"]) for row in said["top"])
    return np.array([[score for _, score in scores]])


def test_answers_are_those_of_the_call_that_they_were_part_of(answered):
    _, recorded, got = answered
    for (path, _, pixels), (status, _, content) in got:
        if pixels is None:
            continue
        assert status == 200, content
        answer = logits_of(path, content, recorded.served)
        found = recorded.rows_of(pixels)
        if path == CLASSIFY:
            found = [probabilities(each) for each in found]
        assert any(answer.tobytes() == each.tobytes() for each in found)


def test_requests_were_put_together_and_sizes_never(answered):
    _, recorded, _ = answered
    rows = [len(pixels) for pixels, _ in recorded.calls]
    assert max(rows) > 3, "nothing was answered together"
    assert {pixels.shape[2:] for pixels, _ in recorded.calls} == {(16, 16), (20, 16)}


def test_each_call_is_what_the_library_computes_for_the_same_batch(answered):
    backend, recorded, _ = answered
    model = vitriad.load("digits-vit", backend)
    for pixels, logits in recorded.calls[:12]:
        options = {} if pixels.shape[2:] == (16, 16) else {"interpolate_pos_encoding": True}
        want = to_numpy(model(pixel_values=pixels, **options).logits)
        np.testing.assert_array_equal(logits, want)


def test_and_within_rounding_what_it_computes_for_one_image(answered):
    backend, recorded, _ = answered
    model = vitriad.load("digits-vit", backend)
    for pixels, logits in recorded.calls[:6]:
        options = {} if pixels.shape[2:] == (16, 16) else {"interpolate_pos_encoding": True}
        alone = [model(pixel_values=pixels[i : i + 1], **options).logits for i in range(len(pixels))]
        want = np.concatenate([to_numpy(each) for each in alone])
        np.testing.assert_allclose(logits, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_bad_neighbours_are_refused_and_nobody_else(answered):
    *_, got = answered
    statuses = [status for (_, _, pixels), (status, *_) in got if pixels is None]
    assert len(statuses) == 30 and {*statuses} == {400, 422}
