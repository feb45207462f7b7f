"""How far apart two shares of the same items may be, from the items that turned.

Bounds are those of the score test of Tango (1998, Statistics in Medicine 17: 891-908), which is meant for
non-inferiority in paired samples. A bootstrap of the same items has no width where none of them turned.
"""

import math
from collections.abc import Callable
from statistics import NormalDist

ALMOST = 1e-12  # away from the estimate, where the equation has a root that bounds nothing


def score_interval(gained: int, lost: int, items: int, confidence: float) -> tuple[float, float]:
    """(low, high) of the first share minus the second; each end is a bound with that confidence. (0, 0) for no items.

    gained: of `items`, those that are right on the first side only; lost: on the second only.
    """
    if items == 0:
        return 0.0, 0.0
    return lower_bound(gained, lost, items, confidence), -lower_bound(lost, gained, items, confidence)


def lower_bound(gained: int, lost: int, items: int, confidence: float) -> float:
    from scipy.optimize import brentq

    if lost == items:
        return -1.0
    estimate = (gained - lost) / items
    return float(brentq(distance(gained, lost, items, confidence), -1.0, estimate - ALMOST, xtol=ALMOST))


def distance(gained: int, lost: int, items: int, confidence: float) -> Callable[[float], float]:
    """Of a true difference: its square distance from the one seen, less what the confidence allows. 0 at the bounds.

    The variance is that of the likeliest shares of items that turn which have this difference (Tango's equation 11).
    """
    allowed = NormalDist().inv_cdf(confidence) ** 2

    def beyond(difference: float) -> float:
        middle = (2 * items - gained + lost) * difference - gained - lost
        root = math.sqrt(middle * middle + 8 * items * lost * difference * (1 - difference))
        losing = (root - middle) / (4 * items)
        variance = items * (2 * losing + difference * (1 - difference))
        return (gained - lost - items * difference) ** 2 - allowed * variance

    return beyond


def fewest_items(loss: float, confidence: float) -> int:
    """Of how many items none has to turn, so that a loss above this one, a share, is out of the question; 0 where
    that is so of no number of them."""
    if loss == 0:
        return 0
    return math.ceil(NormalDist().inv_cdf(confidence) ** 2 * (1 / loss - 1))
