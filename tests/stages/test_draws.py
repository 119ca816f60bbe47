from __future__ import annotations

import numpy as np

from stages.draws import chosen_variants, clip_order, dropped, in_share, noise_like


def test_noise_belongs_to_a_sample_wherever_it_is_drawn() -> None:
    together = noise_like(3, np.arange(8), (2, 5))
    apart = np.concatenate([noise_like(3, np.array([i]), (2, 5)) for i in reversed(range(8))][::-1])
    np.testing.assert_array_equal(together, apart)
    assert not np.array_equal(together, noise_like(4, np.arange(8), (2, 5)))
    many = noise_like(0, np.arange(64), (500,))
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1) < 0.02
    assert abs(np.corrcoef(many)[np.triu_indices(64, 1)]).max() < 0.25


def test_every_epoch_shows_every_clip_once_in_another_order() -> None:
    order = clip_order(0, np.arange(30), 10).reshape(3, 10)
    assert (np.sort(order) == np.arange(10)).all()
    assert not np.array_equal(order[0], order[1])
    np.testing.assert_array_equal(clip_order(0, np.array([17]), 10), order[1, 7:8])


def test_drop_rates_are_shares_that_exclude_each_other() -> None:
    text, visual = dropped(0, np.arange(4000), drop_text=0.2, drop_visual=0.1, drop_both=0.05)
    assert abs((text & ~visual).mean() - 0.2) < 0.025
    assert abs((visual & ~text).mean() - 0.1) < 0.02
    assert abs((text & visual).mean() - 0.05) < 0.015
    none = dropped(0, np.arange(100), 0, 0, 0)
    assert not none[0].any() and not none[1].any()
    everything = dropped(0, np.arange(100), 0, 0, 1)
    assert everything[0].all() and everything[1].all()


def test_variants_are_chosen_by_share() -> None:
    chosen = chosen_variants(0, np.arange(2000), 0.4, 3)
    assert abs((chosen >= 0).mean() - 0.4) < 0.04
    assert set(chosen) == {-1, 0, 1, 2}
    assert (chosen_variants(0, np.arange(50), 0.0, 3) == -1).all()


def test_what_is_left_out_is_drawn_for_each_purpose_by_itself() -> None:
    motion, sentence = (in_share(0, np.arange(2000), purpose, 0.3) for purpose in ("motion", "sentence"))
    assert abs(motion.mean() - 0.3) < 0.04 and abs(sentence.mean() - 0.3) < 0.04
    assert abs((motion & sentence).mean() - 0.09) < 0.03
    assert not in_share(0, np.arange(50), "sentence", 0).any()
