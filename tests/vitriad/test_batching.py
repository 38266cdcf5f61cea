"""The queue before a model: who is answered together, in which order, and what becomes of bad and late requests."""

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from vit_core.errors import InputError
from vitriad.serving.batching import Batcher, BatchLimits, sizes_up_to


class Model:
    """Doubles numbers; notes every call; can be held; negative numbers are bad, and 13 breaks it."""

    def __init__(self, limits, is_held=False):
        self.calls, self.go, self.seen = [], threading.Event(), []
        if not is_held:
            self.go.set()
        self.batcher = Batcher(self.run, limits, lambda rows, seconds: self.seen.append((rows, seconds)))

    def run(self, kind, arrays):
        self.go.wait(60)
        values = arrays["x"]
        self.calls.append((kind, values[:, 0].tolist()))
        if (values < 0).any():
            raise InputError("x: negative.")
        if (values == 13).any():
            raise RuntimeError("secret")
        return {"y": values * 2}

    async def ask(self, *values, width=1, kind="double"):
        found = await self.batcher.submit(kind, {"x": np.repeat(np.array(values, float)[:, None], width, axis=1)})
        return found["y"][:, 0].tolist()


def together(model, *asked):
    """What `asked` give if all of them wait while the model is busy with 0."""

    async def main():
        first = asyncio.ensure_future(model.ask(0))
        await asyncio.sleep(0.05)
        rest = [asyncio.ensure_future(each()) for each in asked]
        await asyncio.sleep(0)
        model.go.set()
        return (await asyncio.gather(first, *rest, return_exceptions=True))[1:]

    return asyncio.run(main())


def test_what_waits_is_answered_together():
    model = Model(BatchLimits(rows=4), is_held=True)
    got = together(model, *[lambda i=i: model.ask(i) for i in range(1, 7)])
    assert got == [[2 * i] for i in range(1, 7)]
    assert [values for _, values in model.calls] == [[0], [1, 2, 3, 4], [5, 6]]
    assert [rows for rows, _ in model.seen] == [1, 4, 2]


def test_only_equal_shapes_and_kinds_are_put_together_and_the_oldest_comes_first():
    model = Model(BatchLimits(rows=4), is_held=True)
    one, wide, other = (lambda: model.ask(1)), (lambda: model.ask(2, width=3)), (lambda: model.ask(3, kind="other"))
    assert together(model, wide, one, other, one, wide, one) == [[4], [2], [6], [2], [4], [2]]
    kinds = [(kind, values) for kind, values in model.calls[1:]]
    assert kinds == [("double", [2, 2]), ("double", [1, 1, 1]), ("other", [3])]


def test_nobody_starves_where_others_keep_coming():
    model = Model(BatchLimits(rows=2, waiting=100), is_held=True)

    async def main():
        done = []

        async def again(left):
            await model.ask(1)
            done.append("small")
            if left:
                await again(left - 1)

        async def odd():
            await model.ask(7, width=5)
            done.append("odd")

        asked = [asyncio.ensure_future(again(20)) for _ in range(6)]
        await asyncio.sleep(0)
        asked.append(asyncio.ensure_future(odd()))
        await asyncio.sleep(0)
        model.go.set()
        await asyncio.gather(*asked)
        return done

    done = asyncio.run(main())
    assert len(done) == 6 * 21 + 1
    assert done.index("odd") <= 8  # behind those that came before it, and no others


def test_a_bad_neighbour_fails_alone(caplog):
    model = Model(BatchLimits(rows=8), is_held=True)
    good, bad, broken, more = together(
        model, lambda: model.ask(1), lambda: model.ask(-1), lambda: model.ask(13), lambda: model.ask(2, 3)
    )
    assert (good, more) == ([2], [4, 6])
    assert isinstance(bad, InputError) and isinstance(broken, HTTPException)
    assert (broken.status_code, broken.code, broken.detail) == (500, "model_failed", "The model failed.")
    assert "secret" in caplog.text and "negative" not in caplog.text


def test_a_full_queue_says_when_to_come_back():
    model = Model(BatchLimits(rows=2, waiting=2), is_held=True)
    one, two, full = together(model, lambda: model.ask(1), lambda: model.ask(2), lambda: model.ask(3))
    assert (one, two) == ([2], [4])
    assert (full.status_code, full.code, full.headers["retry-after"]) == (429, "busy", "1")
    with pytest.raises(HTTPException, match="at most 2 images, got 3"):
        asyncio.run(model.ask(1, 2, 3))


def test_what_nobody_waits_for_is_not_run():
    model = Model(BatchLimits(rows=1), is_held=True)

    async def late():
        async with asyncio.timeout(0):
            await model.ask(5)

    gone, kept = together(model, late, lambda: model.ask(6))
    assert isinstance(gone, TimeoutError) and kept == [12]
    assert [values for _, values in model.calls] == [[0], [6]]


def test_a_request_waits_for_others_on_their_way_and_for_nobody_else():
    model = Model(BatchLimits(rows=2, delay_seconds=30))

    async def main():
        assert await asyncio.wait_for(model.ask(1), 10) == [2]  # nobody is on the way
        with model.batcher.coming():
            first = asyncio.ensure_future(model.ask(3))
            await asyncio.sleep(0.05)
            assert len(model.calls) == 1
            assert await asyncio.wait_for(model.ask(4), 10) == [8]  # which fills the batch
        assert await first == [6]
        with model.batcher.coming():
            last = asyncio.ensure_future(model.ask(5))
            await asyncio.sleep(0.05)
        assert await asyncio.wait_for(last, 10) == [10]  # who was on the way came to nothing

    asyncio.run(main())
    assert [values for _, values in model.calls] == [[1], [3, 4], [5]]


def test_the_delay_ends_the_waiting():
    model = Model(BatchLimits(rows=2, delay_seconds=0.01))

    async def main():
        with model.batcher.coming():
            return await asyncio.wait_for(model.ask(1), 30)

    assert asyncio.run(main()) == [2]


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=5), min_size=1, max_size=12))
def test_everybody_gets_the_own_rows_in_calls_of_known_sizes(requests):
    model = Model(BatchLimits(rows=5, sizes=sizes_up_to(5)), is_held=True)
    got = together(model, *[lambda values=values: model.ask(*values) for values in requests])
    assert got == [[2 * value for value in values] for values in requests]
    assert {len(values) for _, values in model.calls} <= {1, 2, 4, 5}
    assert sum(rows for rows, _ in model.seen) == 1 + sum(map(len, requests))


def test_sizes():
    assert [sizes_up_to(rows) for rows in (1, 2, 5, 8)] == [[1], [1, 2], [1, 2, 4, 5], [1, 2, 4, 8]]
