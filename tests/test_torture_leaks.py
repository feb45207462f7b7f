from tests.torture import leaks


def test_edited_evaluation_rows_planted_among_training_rows_reach_neither_pool_nor_neighbours_nor_pairs():
    part = leaks.run(short=True)
    assert part.failures == []
    caught = {what: count for what, count in part.figures.items() if "made up" in what and "caught" in what}
    assert len(caught) == len(leaks.EDITS)
    for what, count in caught.items():
        found, planted = map(int, count.split(" of "))
        assert found == planted > 10, what


def test_torture_notices_where_edited_rows_reach_the_pairs(monkeypatch):
    monkeypatch.setattr(leaks, "DATA", leaks.DATA.model_copy(update={"near_duplicate_words": None}))
    failures = "\n".join(leaks.run(short=True).failures)
    for place in ("train", "pool", "neighbours", "pairs"):
        assert f"is in {place}" in failures
