"""What a study's numbers say: intervals over seeds, paired tests, their correction, the frontier."""

import itertools
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from apt_assets.study.costs import Costs, cold_seconds, seconds_a_row
from apt_assets.study.plot import over_iterations, trade_off
from apt_assets.study.statistics import frontier, holm, over_seeds, paired_test
from apt_assets.study.summary import compare, correct


def test_loading_the_code_location_the_commands_and_the_pages_waits_for_no_scipy():
    modules = "apt_assets.definitions, apt_assets.cli, apt_assets.report.page, apt_assets.study.command"
    code = f"import sys, {modules}; print('scipy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_arm_that_found_nothing_to_train_on_is_named_in_the_plot_and_has_no_line():
    svg = over_iterations({"apt": [(1.0, 2.0), (2.0, 3.0)], "none": []}, "rows", "right")
    assert "2  none" in svg
    assert "none, iteration" not in svg


def test_interval_over_seeds_is_students_t():
    found = over_seeds([0.4, 0.5, 0.6])
    low, high = stats.ttest_1samp([0.4, 0.5, 0.6], 0).confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((low, high))


def test_seeds_that_agree_have_an_interval_of_no_width():
    found = over_seeds([0.5, 0.5, 0.5])
    assert (found["low"], found["high"], found["sd"]) == (0.5, 0.5, 0.0)


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


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=10))
def test_paired_test_of_few_items_counts_the_signs_that_are_as_extreme(thirds):
    one, other = ({n: share / 3 for n, share in enumerate(values)} for values in (thirds, [0] * len(thirds)))
    sums = [abs(sum(signs)) for signs in itertools.product(*((-x, x) for x in thirds))]
    extreme = sum(each >= abs(sum(thirds)) for each in sums) / len(sums)
    assert paired_test(one, other)["p"] == pytest.approx(extreme)


def test_paired_test_of_many_items_agrees_with_the_normal_approximation():
    difference = np.random.default_rng(2).choice([-1, -1 / 3, 0, 0, 2 / 3, 1], 1500)
    found = paired_test(dict(enumerate(difference)), dict.fromkeys(range(1500), 0.0))
    score = abs(difference.sum()) / np.sqrt((difference**2).sum())
    assert found["p"] == pytest.approx(2 * stats.norm.sf(score), abs=0.01)


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


def part(stage, cpu_seconds, work, answered_before=0):
    found = {"stage": stage, "fingerprint": stage, "cpu_seconds": cpu_seconds, "work": work}
    return found | {"answered_before": answered_before}


def test_rows_taken_over_from_another_arm_cost_what_they_cost_there():
    own = part("eval_predictions", 10.0, {"answers": {"computed": 20, "reused": 0}})
    taken = part("similar_predictions", 1.0, {"answers": {"computed": 0, "reused": 8}})
    rates = seconds_a_row([{"parts": [own, taken]}])
    assert rates == {"answers": 0.5}
    assert cold_seconds({"parts": [own, taken]}, rates) == {"eval_predictions": 10.0, "similar_predictions": 5.0}


def test_rows_taken_over_from_the_same_iteration_cost_nothing_more():
    taken = part("similar_predictions", 1.0, {"answers": {"computed": 0, "reused": 8}}, answered_before=6)
    assert cold_seconds({"parts": [taken]}, {"answers": 0.5}) == {"similar_predictions": 2.0}


@pytest.mark.parametrize(("epochs", "cold"), [(1, 40.0), (4, 32.5)])
def test_reference_rows_taken_over_count_as_a_third_of_an_epoch_of_training(epochs, cold):
    training = part("adapter_checkpoint", 30.0, {"references": {"computed": 0, "reused": 10}, "steps": 5})
    found = cold_seconds({"epochs": epochs, "parts": [training]}, {})
    assert found["adapter_checkpoint"] == pytest.approx(cold)


def test_what_an_arm_and_its_start_both_read_or_computed_counts_once():
    start = Costs(frozenset("abc"), frozenset("ab"), rows=2, tokens=20, steps=1, seconds={"data": 1.0, "train": 3.0})
    own = Costs(frozenset("cd"), frozenset("d"), rows=1, tokens=10, steps=1, seconds={"data": 1.0, "again": 2.0})
    both = own + start
    assert [both.amount(name) for name in ("labels", "labels_trained", "rows", "cpu_seconds")] == [4, 3, 3, 6.0]


def test_arms_are_called_better_and_worse_than_the_control_if_many_items_say_so():
    right = {"plain": 0.5, "good": 0.9, "poor": 0.1, "same": 0.5}

    def item_means(found):
        share = right[found[1]["arm"]]
        test = {item: float(item < 100 * share) for item in range(100)}
        return {"test": test, "general": dict.fromkeys(range(50), 1.0)}

    done = {arm: {1: {"arm": arm, "test": share, "general": 1.0}} for arm, share in right.items()}
    study = SimpleNamespace(file=SimpleNamespace(control="plain", seeds=[1]))
    arms = {arm: {} for arm in right}
    compare(study, SimpleNamespace(item_means=item_means), done, arms)
    correct({"domain": {"arms": arms}})
    tested = {arm: found["against_control"]["test"] for arm, found in arms.items() if found}
    assert {arm: found["verdict"] for arm, found in tested.items()} == {
        "good": "better", "poor": "worse", "same": "not told apart"
    }  # fmt: skip
    assert tested["good"]["difference"] == pytest.approx(0.4)
    assert tested["poor"]["over_seeds"]["mean"] == pytest.approx(-0.4)
    assert all(found["p_corrected"] >= found["p"] for found in tested.values())
    assert all(found["against_control"]["general"]["verdict"] == "not told apart" for found in arms.values() if found)
