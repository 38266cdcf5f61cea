"""How alike two outputs are: by hand-made numbers, and at every edge."""

import numpy as np
import pytest

from vit_core.likeness import Likeness, best, cells, cosines, divergences, in_common, least, likeness


def test_cosines_also_of_nothing():
    zero, one = np.zeros((1, 3)), np.ones((1, 3))
    pairs = ((zero, zero, 1), (zero, one, 0), (one, zero, 0), (one, -one, -1), (one * np.nan, one, np.nan))
    for got, exact, expected in pairs:
        np.testing.assert_allclose(cosines(got, exact), [expected], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_cosine_is_of_all_numbers_of_an_image_in_float64_and_at_most_1(dtype):
    random = np.random.default_rng(0)
    one, two = (random.standard_normal((50, 4, 6)).astype(dtype) for _ in "ab")
    by_hand = [
        np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)) for a, b in zip(*np.float64((one, two)), strict=True)
    ]
    np.testing.assert_allclose(cosines(one, two), by_hand, rtol=1e-12, atol=1e-15)
    assert cosines(one, one).max() <= 1 and cosines(one, -one).min() >= -1
    huge = np.full((1, 4, 6), 6e4, dtype)  # whose squares float16 does not have
    np.testing.assert_allclose(cosines(huge, huge), 1, rtol=1e-12)


def test_of_equal_scores_the_first_is_the_best_as_argmax_has_it():
    scores = np.float64([[1, 3, 3, 0], [2, 2, 2, 2]])
    np.testing.assert_array_equal(best(scores, 3), [[1, 2, 0], [0, 1, 2]])
    np.testing.assert_array_equal(best(scores, 1)[:, 0], scores.argmax(axis=1))


def test_few_classes_are_all_among_the_best_five():
    assert best(np.zeros((2, 3)), 5).shape == (2, 3)
    turned = likeness("logits", np.float64([[3, 2, 1]]), np.float64([[1, 2, 3]]))
    assert (turned.top1, turned.top5) == (0, 1)


def test_best_classes_in_common_do_not_ask_for_their_order():
    one, two = np.array([[0, 1, 2], [0, 1, 2]]), np.array([[2, 0, 1], [3, 4, 2]])
    np.testing.assert_allclose(in_common(one, two), [1, 1 / 3])


def test_no_number_agrees_with_nothing():
    logits, nothing = np.float64([[1, 2, 0]]), np.float64([[np.nan, 2, 0]])
    for got, exact in ((logits, nothing), (nothing, logits), (nothing, nothing)):
        found = likeness("logits", got, exact)
        assert (found.top1, found.top5) == (0, 0) and np.isnan([found.cosine, found.kl]).all()


def test_divergence_by_hand_and_where_a_class_has_no_share():
    exact, got = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.25, 0.5]])
    np.testing.assert_allclose(divergences(got + 100, exact - 7), 0.25 * np.log(2))  # a shift of all changes nothing
    none = np.float64([[0, 0, -np.inf]])
    np.testing.assert_allclose(divergences(exact, none), 0.5 * np.log(0.5 / 0.5) + 0.5 * np.log(0.5 / 0.25))
    np.testing.assert_array_equal(divergences(none, none), [0])
    np.testing.assert_array_equal(divergences(none, exact), [np.inf])


def test_two_rows_of_a_head_exchanged_show_in_the_class_and_not_in_the_cosine():
    exact = 30 + np.float64([[0, 2, 1, 0, 0, 0, 0], [3, 0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 2, 0, 1]])
    got = exact[:, [0, 2, 1, 3, 4, 5, 6]]
    found = likeness("logits", got, exact)
    assert found.cosine > 0.999
    np.testing.assert_allclose([found.top1, found.top5], [2 / 3, 1])
    shares = np.exp(exact[0]) / np.exp(exact[0]).sum()
    np.testing.assert_allclose(found.kl, shares[1] - shares[2])  # times the difference of the two, which is 1


def test_only_logits_of_two_classes_have_classes():
    for output, shape in (("logits", (2, 1)), ("logits", (2, 3, 4)), ("last_hidden_state", (2, 3)), ("mask", (2, 5))):
        found = likeness(output, np.ones(shape), np.ones(shape))
        np.testing.assert_allclose(found.cosine, 1, rtol=1e-12)
        assert found[1:] == (None, None, None) and cells(found) == ["1.0000000", "", "", ""]


def test_the_least_of_several_is_the_least_in_each_respect():
    assert least([]) is None and least([Likeness(0.5), Likeness(0.25)]) == Likeness(0.25)
    several = [Likeness(0.5), Likeness(0.9, 1.0, 0.6, 0.0), Likeness(1.0, 0.5, 0.8, 2.0)]
    assert least(several) == Likeness(0.5, 0.5, 0.6, 2.0)
    assert np.isnan(least([Likeness(np.nan), Likeness(1.0)]).cosine)
    assert cells(Likeness(0.5, 0.25, 1.0, 2.0)) == ["0.5000000", "25.0%", "100.0%", "2.0e+00"]
    assert cells(None) == cells({"cosine": None}) == ["", "", "", ""]
