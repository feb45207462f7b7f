"""What a study's numbers say: intervals over seeds, paired tests, their correction, the frontier."""

import numpy as np
import pytest
from scipy import stats

from apt_assets.study.costs import Costs, cold_seconds, seconds_a_row
from apt_assets.study.plot import trade_off
from apt_assets.study.statistics import frontier, holm, over_seeds, paired_test


def test_interval_over_seeds_is_students_t():
    found = over_seeds([0.4, 0.5, 0.6])
    low, high = stats.ttest_1samp([0.4, 0.5, 0.6], 0).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_one_seed_has_no_interval():
    assert over_seeds([0.4])["low"] is None


def test_paired_test_agrees_with_the_exact_permutation_of_few_items():
    one = dict(enumerate([1.0, 1.0, 1.0, 1.0, 1.0, 0.0]))
    other = dict.fromkeys(range(6), 0.0)
    found = paired_test(one, other)
    # Of 2**5 signs of five equal differences two are as extreme as what was seen.
    assert found["p"] == pytest.approx(2 / 32, abs=0.01)
    assert found["difference"] == pytest.approx(5 / 6)
    assert found["low"] < found["difference"] <= found["high"] <= 1


def test_equal_arms_are_not_told_apart():
    values = dict(enumerate(np.random.default_rng(1).integers(0, 2, 50).astype(float)))
    assert paired_test(values, values)["p"] == 1.0


def test_items_that_only_one_arm_has_do_not_count():
    assert paired_test({1: 1.0, 2: 1.0}, {1: 1.0, 3: 0.0})["items"] == 1


def test_false_alarms_of_the_paired_test_are_as_rare_as_it_says():
    dice = np.random.default_rng(0)
    alarms = 0
    for _ in range(200):
        one, other = (dict(enumerate(dice.integers(0, 2, 60).astype(float))) for _ in range(2))
        alarms += paired_test(one, other, resamples=400)["p"] < 0.05
    assert alarms <= 20  # 10 are to be expected; more than 20 of 200 come with a chance of 1 in 1,000


def test_holm_keeps_the_order_and_never_makes_a_p_smaller():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_frontier_holds_what_nothing_beats():
    assert frontier([(1, 1), (2, 0), (0, 2), (1, 0), (2, 0)]) == [0, 1, 2, 4]


def test_a_plot_names_every_arm_and_escapes_its_name():
    svg = trade_off({"a<b": (1.0, 2.0), "c": (0.5, 1.0)}, "gain", "kept")
    assert "a&lt;b: on the frontier" in svg
    assert "c: another arm is at least as good in both" in svg


def test_rows_taken_over_from_another_arm_cost_what_they_cost_there():
    own = {"stage": "eval_predictions", "cpu_seconds": 10.0, "work": {"answers": {"computed": 20, "reused": 0}}}
    taken = {"stage": "preference_pairs", "cpu_seconds": 1.0, "work": {"answers": {"computed": 0, "reused": 8}}}
    rates = seconds_a_row([{"parts": [own, taken]}])
    assert rates == {"answers": 0.5}
    assert cold_seconds({"parts": [own, taken]}, rates) == 15.0


def test_reference_rows_taken_over_count_as_a_third_of_the_training():
    training = {
        "stage": "adapter_checkpoint",
        "cpu_seconds": 30.0,
        "work": {"references": {"computed": 0, "reused": 10}, "steps": 5},
    }
    assert cold_seconds({"parts": [training]}, {}) == pytest.approx(40.0)


def test_labels_that_an_arm_and_its_start_both_read_count_once():
    start = Costs(frozenset("abc"), frozenset("ab"), rows=2, tokens=20, steps=1, cpu_seconds=3.0)
    own = Costs(frozenset("cd"), frozenset("d"), rows=1, tokens=10, steps=1, cpu_seconds=2.0)
    both = own + start
    assert [both.amount(name) for name in ("labels", "labels_trained", "rows", "cpu_seconds")] == [4, 3, 3, 5.0]
