"""The noise of MAE's masks and the masks of branches: their bits, for good; and how many patches are kept."""

from zlib import crc32

import numpy as np
import pytest

from vit_core.config import ViTConfig
from vit_core.errors import InputError
from vit_core.masking import MOST_PATCHES, drop_path_mask, kept_fraction, noise, num_kept

WORD = 2**64 - 1


def philox(key, block, second=0):
    """Four words of Philox4x64-10, from its paper (table 2 and section 3.3); NumPy counts blocks from one."""
    words, keys = [block + 1, second, 0, 0], list(key)
    for _ in range(10):
        first, second = words[0] * 0xD2E7470EE14C6C93, words[2] * 0xCA5A826395121157
        words = [(second >> 64) ^ words[1] ^ keys[0], second & WORD, (first >> 64) ^ words[3] ^ keys[1], first & WORD]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) & WORD, (keys[1] + 0xBB67AE8584CAA73B) & WORD]
    return words


@pytest.mark.parametrize(
    ("seed", "step"), [(0, 0), (1, 0), (0, 1), (2**63, 5), (WORD, WORD), (np.uint64(WORD), np.int32(7))]
)
def test_noise_is_the_bits_of_philox(seed, step):
    words = [word for block in range(8) for word in philox((int(seed), int(step)), block)]
    found = noise(seed, 3, 10, step)
    assert (found.shape, found.dtype) == ((3, 10), np.float32)
    np.testing.assert_array_equal(found.ravel().astype(np.float64) * 2**24, [word >> 40 for word in words[:30]])


PINNED = [
    ((0, 2, 5), [[193722, 4052523, 1869415, 9469306, 8428531], [4657448, 15880378, 16543446, 4258438, 3272405]]),
    ((WORD, 1, 5, 7), [[1256294, 14248579, 15609855, 1182352, 5637854]]),
    ((1, 1, 3, WORD), [[9137191, 15091263, 10779859]]),
]


@pytest.mark.parametrize(("arguments", "numbers"), PINNED)
def test_noise_never_changes(arguments, numbers):
    np.testing.assert_array_equal(noise(*arguments).astype(np.float64) * 2**24, numbers)


def test_an_image_gets_the_same_noise_in_every_batch():
    full = noise(3, 8, 49, step=2)
    for batch in (0, 1, 5):
        np.testing.assert_array_equal(noise(3, batch, 49, step=2), full[:batch])


def test_every_seed_step_and_image_gets_other_noise():
    rows = np.concatenate([noise(seed, 3, 196, step) for seed in (0, 1, 2**32) for step in (0, 1, 2**32)])
    assert len({row.tobytes() for row in rows}) == len(rows) == 27
    assert rows.min() >= 0 and rows.max() < 1
    np.testing.assert_allclose(rows.mean(), 0.5, atol=0.02)  # standard error 0.004
    np.testing.assert_allclose(np.abs(np.corrcoef(rows) - np.eye(27)).max(), 0, atol=0.35)  # 5 / sqrt(196)


@pytest.mark.parametrize("wrong", [-1, 2**64, 1.0, "1", None, True, np.float32(1)])
def test_seeds_and_steps_refused(wrong):
    for name in ("seed", "step"):
        with pytest.raises(InputError) as caught:
            noise(**{"seed": 0, "batch": 1, "patches": 4, name: wrong})
        assert str(caught.value) == f"{name}: expected an int from 0 to 2**64 - 1, got {wrong!r}."
        with pytest.raises(InputError, match=f"^{name}: expected an int from 0"):
            drop_path_mask(**{"seed": 0, "batch": 1, "rates": (0.5,), name: wrong})


def test_branches_are_left_out_by_the_bits_of_philox():
    key, step, rates = (5, crc32(b"drop path")), 2**40, (0.0, 0.4, 0.8)
    words = [word for block in range(6) for word in philox(key, block, step)]
    drawn = np.array([(word >> 11) / 2**53 for word in words]).reshape(4, 3, 2)  # (images, layers, branches)
    found = drop_path_mask(5, 4, rates, step)
    assert (found.shape, found.dtype) == ((3, 2, 4), bool)
    np.testing.assert_array_equal(found, (drawn < np.array(rates)[:, None]).transpose(1, 2, 0))
    np.testing.assert_array_equal(drop_path_mask(5, 2, rates, step), found[:, :, :2])  # an image's own, in any batch


def test_branches_are_left_out_as_often_as_the_rates_say():
    rates = ViTConfig(num_hidden_layers=5, drop_path_rate=0.4).drop_path_rates
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-15)
    masks = np.concatenate([drop_path_mask(seed, 500, rates, step) for seed in (0, 1) for step in (0, 1)], axis=2)
    assert len({mask.tobytes() for mask in np.split(masks, 4, axis=2)}) == 4
    for rate, shares in zip(rates, masks.mean(axis=2), strict=True):
        np.testing.assert_allclose(shares, rate, atol=4 * np.sqrt(rate * (1 - rate) / masks.shape[2]))
    both = (masks[:, 0] & masks[:, 1]).mean(axis=1)  # the two branches have nothing to do with one another
    np.testing.assert_allclose(both, np.square(rates), atol=4 * np.sqrt(0.16 * 0.84 / masks.shape[2]))


@pytest.mark.parametrize("layers", [0, 1])
def test_fewer_than_two_layers_leave_nothing_out(layers):
    rates = ViTConfig(num_hidden_layers=layers, drop_path_rate=0.9).drop_path_rates
    assert rates == (0.0,) * layers
    assert drop_path_mask(0, 50, rates).tolist() == [[[False] * 50] * 2] * layers


@pytest.mark.parametrize(
    ("patches", "ratio", "kept"),
    [
        (196, 0.75, 49),
        (16, 0.9, 1),  # 16 * (1 - 0.9) is 1.5999…
        (256, 0.75, 64),
        (196, 0, 196),
        (196, 0.0, 196),
        (10, 0.7, 3),  # 3.0000000000000004
        (10, 0.8, 1),  # 1.9999999999999996
        (100, 0.99, 1),
        (1, 0.0, 1),
        (7, np.float64(0.5), 3),
        (196, np.float32(0.75), 49),
    ],
)
def test_how_many_patches_are_kept(patches, ratio, kept):
    found = num_kept(patches, ratio)
    assert (found, type(found)) == (kept, int)


@pytest.mark.parametrize(
    ("patches", "ratio"),
    [
        (10, 0.9),
        (3, 0.75),
        (196, 1),
        (196, 1.5),
        (196, -0.1),
        (196, float("nan")),
        (196, "0.75"),
        (196, None),
        (0, 0.5),
    ],
)
def test_ratios_refused(patches, ratio):
    with pytest.raises(InputError) as caught:
        num_kept(patches, ratio)
    expected = f"a number in [0, 1) that keeps at least one of {patches} patches, got {ratio!r}."
    assert str(caught.value) == f"mask_ratio: expected {expected}"


@pytest.mark.parametrize("ratio", [0.75, 0, 0.9, 0.6, 0.5, 0.1, 1 / 3, np.float32(0.25)])
def test_the_number_kept_in_whole_numbers(ratio):
    times, plus, over = kept_fraction(ratio)
    for patches in (*range(over, 500), 196, 1369, 4096, MOST_PATCHES):
        expected = num_kept(patches, ratio) if int(patches * (1 - ratio)) else 0
        assert (patches * times + plus) // over == expected
    assert max(times, over) * MOST_PATCHES < 2**31


@pytest.mark.parametrize(("ratio", "kept", "of"), [(0.3, 7, 10), (0.07, 93, 100), (0.65, 7, 20)])
def test_ratios_whose_products_round_either_way_have_no_such_rule(ratio, kept, of):
    assert {num_kept(of * i, ratio) - kept * i for i in range(1, 300)} == {0, -1}
    with pytest.raises(InputError, match=f"mask_ratio: {ratio} .* not known while tracing"):
        kept_fraction(ratio)


def test_what_is_no_ratio_has_no_rule_either():
    for ratio in (1, -0.1, "0.75", None, [0.75]):
        with pytest.raises(InputError, match="expected a number in"):
            kept_fraction(ratio)
