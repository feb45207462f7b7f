"""How long the landed rows are, counted before anything is computed."""

from tokenizers import Tokenizer

from apt_assets.rows.lengths import counter, look_at
from tests import tiny


def test_truncation_and_padding_that_a_tokenizer_was_saved_with_change_no_length(tmp_path):
    file = tiny.make_policy(tmp_path / "policy") / "tokenizer.json"
    rows = [{"prompt": f"{'word ' * 400}{number}", "answer": "yes " * 100} for number in range(3)]
    landed = tiny.write_jsonl(tmp_path / "rows.jsonl", rows)
    before = look_at(landed, counter(file))
    saved = Tokenizer.from_file(str(file))
    saved.enable_truncation(128)
    saved.enable_padding(length=128)
    saved.save(str(file))
    assert look_at(landed, counter(file)) == before
    assert before[1] == (2001, 399)
