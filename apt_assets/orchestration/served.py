"""The asset `served_adapter`: which adapter `apt-assets serve` answers with, as the server itself records it.

Nothing computes it, so no run and no sensor looks at it. Each materialisation is a moment from which on another adapter
was live.
"""

import dagster as dg

NAME = "served_adapter"


def served_adapter() -> dg.AssetSpec:
    return dg.AssetSpec(
        NAME,
        deps=["promoted_adapter"],
        group_name="7_promotion",
        description="The adapter that `apt-assets serve` answers with. The server records it, at its start and "
        "whenever another one goes live; it is not computed.",
        kinds={"huggingface"},
    )
