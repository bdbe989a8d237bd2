"""The files beside a tokenizer.json: every key, in every odd shape, against what transformers makes of it."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ferrum.errors import FerrumError, InvalidFormat, ModelWarning
from ferrum.load.model import open_model
from ferrum.load.token_ids import NO_IDS
from ferrum.load.tokenizer_classes import CLASS_TOKENS
from ferrum.load.tokenizer_keys import CHECKED, FOLLOWED, HARMLESS, READ
from ferrum.load.vocabulary import FolderVocabulary
from ferrum.text.tokenizer import Tokenizer
from tests.load.tokenizer_changes import TEXTS, Files, added_token, all_cases, folder, tokenizer_json, write

GOLDENS = Path(__file__).parents[1] / "goldens" / "tokenizer_config_changes.json"
CASES = all_cases()
KINDS = sorted({name.partition(":")[0].partition(" ")[0] for name in CASES})


@cache
def goldens() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDENS.read_text(encoding="utf-8"))
    return found


def read(place: Path, files: Files) -> tuple[dict[str, str], Tokenizer]:
    vocabulary = FolderVocabulary(write(place, files))
    tokenizer = vocabulary.tokenizer(NO_IDS)
    return dict(vocabulary.settings(None).names), tokenizer


@pytest.mark.clause("LOAD-52")
@pytest.mark.clause("LOAD-54")
@pytest.mark.clause("LOAD-55")
@pytest.mark.clause("TEXT-50")
@pytest.mark.parametrize("kind", KINDS)
def test_odd_files_give_what_transformers_makes_of_them_or_one_line(tmp_path: Path, kind: str) -> None:
    compared = 0
    for name, files in CASES.items():
        if name.partition(":")[0].partition(" ")[0] != kind:
            continue
        expected = goldens()["cases"][name]
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        place.mkdir()
        try:
            names, tokenizer = read(place, files)
        except FerrumError as error:
            assert "\n" not in str(error) and str(place) in str(error), name
            # transformers takes an object without a content for the token of an empty text
            assert expected is None or "content is missing" in str(error), name
            continue
        compared += 1
        if expected is None:  # transformers refuses what does no harm, such as a side to pad on
            continue
        assert names == expected["names"], name
        assert sorted(tokenizer.special_ids) == expected["special"], name
        if (
            kind != "class"
        ):  # a class of transformers may cut text by rules of its own; ours are those of tokenizer.json
            assert [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS] == expected["ids"], name
    assert compared


@pytest.mark.clause("LOAD-55")
def test_the_classes_have_the_special_tokens_that_they_have_in_transformers() -> None:
    ours = {name: {key: text for key, text in tokens.items() if text} for name, tokens in CLASS_TOKENS.items()}
    assert ours == {name: tokens for name, tokens in goldens()["classes"].items() if tokens}


@pytest.mark.clause("LOAD-56")
def test_every_key_of_a_tokenizer_class_is_read_checked_followed_or_known_to_be_harmless() -> None:
    keys = {key for key in goldens()["keys"] if not key.endswith("_token")}
    known = READ | FOLLOWED | HARMLESS | set(CHECKED)
    assert keys <= known
    assert len(known) == len(READ) + len(FOLLOWED) + len(HARMLESS) + len(CHECKED)  # each in one place


@pytest.mark.clause("LOAD-56")
@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("bytes", "add_prefix_space", True),
        ("pieces", "add_prefix_space", False),
        ("bytes", "do_lower_case", True),
        ("bytes", "fix_mistral_regex", True),
        ("bytes", "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", True),
    ],
)
def test_a_key_that_asks_for_what_is_not_done_is_told(tmp_path: Path, kind: str, key: str, value: Any) -> None:
    with pytest.warns(ModelWarning, match=rf"tokenizer_config\.json: {key} is {value}: ") as told:
        read(tmp_path, folder(kind, {key: value}))
    assert len(told) == 1


@pytest.mark.clause("LOAD-56")
@pytest.mark.clause("LOAD-53")
@pytest.mark.parametrize(
    ("kind", "settings"),
    [  # what models are published with
        ("bytes", {"add_prefix_space": False, "clean_up_tokenization_spaces": False, "model_max_length": 8192,
                   "tokenizer_class": "GPT2Tokenizer", "additional_special_tokens": ["<|im_start|>"],
                   "added_tokens_decoder": {"3": added_token("<|im_start|>"), "4": added_token("<|im_end|>")}}),
        ("pieces", {"add_bos_token": True, "add_eos_token": False, "legacy": False, "add_prefix_space": None,
                    "tokenizer_class": "LlamaTokenizer", "padding_side": "right", "sp_model_kwargs": {},
                    "bos_token": {"__type": "AddedToken", **added_token("<s>")}, "model_max_length": 1e30,
                    "clean_up_tokenization_spaces": True, "use_default_system_prompt": False}),
        ("bytes", {"bos_token": "<s>", "eos_token": "</s>", "model_input_names": ["input_ids", "attention_mask"],
                   "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "x", "split_special_tokens": False,
                   "errors": "replace", "auto_map": {"AutoTokenizer": ["x", None]}, "backend": "tokenizers"}),
    ],
)  # fmt: skip
def test_ordinary_files_are_read_without_a_word(tmp_path: Path, kind: str, settings: Files) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path, folder(kind, settings, special_tokens_map={"eos_token": "</s>"}))


@pytest.mark.clause("TEXT-50")
@pytest.mark.parametrize("place", ["listed", "added_tokens.json"])
def test_an_id_that_a_token_cannot_have_is_told(tmp_path: Path, place: str) -> None:
    size = len(tokenizer_json("bytes")["model"]["vocab"])
    listed = folder("bytes", {"added_tokens_decoder": {str(size + 7): added_token("<a>")}})
    files = listed if place == "listed" else folder("bytes", {}, added_tokens={"<a>": size + 7})
    with pytest.warns(ModelWarning, match=f"'<a>' becomes token {size}, not {size + 7}"):
        _, tokenizer = read(tmp_path, files)
    assert tokenizer.encode("<a>", add_special_tokens=False) == [size]


@pytest.mark.clause("LOAD-52")
def test_a_template_gets_the_special_tokens_whatever_file_names_them(tmp_path: Path) -> None:
    """Those of the files, of the class, of the padding; and names that this model alone has."""
    template = "{% for t in [bos_token, eos_token, unk_token, pad_token, img_token, sep_token] %}[{{ t }}]{% endfor %}"
    padded = {"padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 5,
                          "pad_type_id": 0, "pad_token": "<pad>"}}  # fmt: skip
    settings = {
        "chat_template": template,
        "eos_token": "<e>",
        "img_token": "<img>",
        "tokenizer_class": "LlamaTokenizer",
    }
    write(tmp_path, folder("pieces", settings, padded, special_tokens_map={"eos_token": {"content": "<|im_end|>"}}))
    made = open_model(tmp_path).vocabulary.chat_template()
    assert made is not None
    assert made.render([{"role": "user", "content": ""}]) == "[<s>][<|im_end|>][<unk>][<pad>][<img>][]"


@pytest.mark.clause("LOAD-52")
@pytest.mark.parametrize("name", ["sources", "source", "self", "messages", "tools", "9", "a b", "None"])
def test_a_name_that_a_model_has_for_itself_may_be_any(tmp_path: Path, name: str) -> None:
    settings = {"chat_template": "{{ messages[0].content }}", "extra_special_tokens": {name: "<x>"}}
    made = FolderVocabulary(write(tmp_path, folder("bytes", settings))).chat_template()
    assert made is not None and made.render([{"role": "user", "content": "hi"}]) == "hi"


@pytest.mark.clause("LOAD-52")
def test_the_names_can_be_had_without_a_tokenizer_json(tmp_path: Path) -> None:
    files = folder("bytes", {"tokenizer_class": "LlamaTokenizer", "eos_token": "<e>"})
    del files["tokenizer.json"]
    names = FolderVocabulary(write(tmp_path, files)).settings(None).names
    assert names == {"bos_token": "<s>", "eos_token": "<e>", "unk_token": "<unk>"}


@pytest.mark.clause("LOAD-57")
def test_special_tokens_in_a_text_are_split_where_the_file_says_so(tmp_path: Path) -> None:
    _, tokenizer = read(tmp_path, folder("bytes", {"split_special_tokens": True}))
    assert len(tokenizer.encode("</s>", add_special_tokens=False)) > 1
    with pytest.raises(InvalidFormat, match="split_special_tokens must be true or false"):
        read(tmp_path, folder("bytes", {"split_special_tokens": "yes"}))


@pytest.mark.clause("LOAD-58")
def test_a_key_that_nothing_is_known_of_is_told(tmp_path: Path) -> None:
    with pytest.warns(ModelWarning, match="ignored: 'mystery_flag', 'lower_everything'"):
        read(tmp_path, folder("bytes", {"mystery_flag": True, "lower_everything": True, "own_token": "<x>"}))


@pytest.mark.clause("TEXT-50")
@pytest.mark.parametrize(
    ("settings", "others"),
    [
        ({"pad_token": "\ud800"}, {}),
        ({"pad_token": {"content": "a\udfff"}}, {}),
        ({"image_token": "\ud800"}, {}),
        ({"added_tokens_decoder": {"90": {"content": "\ud800"}}}, {}),
        ({}, {"added_tokens": {"\ud800": 90}}),
        ({}, {"special_tokens_map": {"pad_token": "\ud800"}}),
    ],
)
def test_half_of_a_character_is_no_token(tmp_path: Path, settings: Files, others: Files) -> None:
    with pytest.raises(InvalidFormat, match="half of a surrogate pair"):
        read(tmp_path, folder("bytes", settings, **others))


@pytest.mark.clause("TEXT-50")
def test_what_was_special_stays_out_of_answers(tmp_path: Path) -> None:
    listed = {"added_tokens_decoder": {"2": {"content": "</s>", "special": False}}}
    _, plain = read(tmp_path, folder("bytes"))
    _, tokenizer = read(tmp_path, folder("bytes", listed))
    assert tokenizer.decode([7, 2, 7]) == plain.decode([7, 2, 7]) == plain.decode([7, 7])
