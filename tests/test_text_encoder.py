"""The smaller vocabulary: kept pieces keep their states, other words are spelled."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from pipelines.commands.text_encoder import RESERVED, keep_pieces, main, trim
from pipelines.inference.text import encode_text, load_text_encoder

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
WORDS = ["the", "and", "piano", "##s", "slow", "drum", "##ming", "waltz"]


def vocabulary() -> dict[str, int]:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    unused = [f"[unused{index}]" for index in range(RESERVED - len(special))]
    pieces = [*special, *unused, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    pieces += [word for word in WORDS if word not in pieces]
    return {piece: index for index, piece in enumerate(pieces)}


def save_source(folder: Path) -> None:
    """A tokenizer and an encoder as transformers saves them."""
    words = vocabulary()
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = (("[SEP]", words["[SEP]"]), ("[CLS]", words["[CLS]"]))
    tokenizer.post_processor = processors.BertProcessing(*ends)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    torch.manual_seed(0)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)


def test_pieces_are_kept_by_use_then_words_then_by_frequency():
    words = vocabulary()

    def kept(size: int) -> list[str]:
        numbers = keep_pieces(words, {words["waltz"]}, RESERVED + 52 + size)
        return [piece for piece, number in words.items() if number in numbers]

    assert kept(2)[-2:] == ["the", "waltz"]
    assert kept(6)[-4:] == ["piano", "slow", "drum", "waltz"]
    assert kept(7)[-4:] == ["slow", "drum", "##ming", "waltz"]
    assert set(LETTERS) <= set(kept(2))


def test_signs_are_kept_and_other_scripts_are_not():
    words = {"[PAD]": 0} | {piece: RESERVED + n for n, piece in enumerate("♯♭語#ö")}
    words |= {"##♯": 200, "##語": 201, "многие": 202, "major": 203}
    kept = keep_pieces(words, set(), 1000)
    assert {piece for piece, number in words.items() if number in kept and number} == {
        *("♯", "♭", "##♯", "ö", "#", "major")
    }


def test_used_pieces_keep_their_states_and_others_are_spelled(tmp_path):
    save_source(tmp_path / "source")
    whole, small = tmp_path / "whole", tmp_path / "small"
    trim(tmp_path / "source", [], len(vocabulary()), whole)
    trim(tmp_path / "source", ["slow waltz"], RESERVED + 52 + 2, small)
    before, after = load_text_encoder(whole), load_text_encoder(small)
    expected, found = (encode_text(*parts, ["slow waltz"]) for parts in (before, after))
    assert torch.equal(expected.text_states, found.text_states)
    assert after[0].tokenize("drumming") == ["d", "##r", "##u", "##m", "##m", "##i", "##n", "##g"]
    assert before[0].tokenize("drumming") == ["drum", "##ming"]
    sizes = [encoder.get_input_embeddings().weight.shape[0] for _, encoder in (before, after)]
    assert sizes == [len(vocabulary()), RESERVED + 52 + 2]


def test_a_source_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit):
        main(["nowhere", "--output", "out"])
    assert "nowhere holds no saved encoder" in capsys.readouterr().err
