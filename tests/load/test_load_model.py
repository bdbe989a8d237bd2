"""From a place on this machine to a model; tokenizer and template are read at their first use."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.errors import FerrumError, InvalidFormat, ModelWarning, NotFound, TokenizerError, Unsupported
from ferrum.load.model import load_model, open_model
from ferrum.load.resolve import Location
from tests.load.gguf_writer import Stored, gguf_bytes
from tests.load.tiny_models import ABSENT, METADATA, changed, tensors, write_folder, write_gguf
from tests.text.small_tokenizers import byte_level_json

TEMPLATE = "{% for m in messages %}{{ bos_token }}{{ m['content'] }}{{ eos_token }}{% endfor %}"
MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.mark.clause("LOAD-40")
def test_a_directory_a_file_and_a_directory_with_one_file_are_models(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    (tmp_path / "only").mkdir()
    file = write_gguf(tmp_path / "only" / "tiny.gguf")
    names = [load_model(place).name for place in (folder, file, file.parent)]
    assert names == ["folder", "tiny", "only"]
    located = load_model(Location("alias", file))
    assert (located.name, located.path) == ("alias", file)
    assert load_model(file.parent).path == file


@pytest.mark.clause("LOAD-40")
def test_a_place_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="absent does not exist"):
        load_model(tmp_path / "absent")
    with pytest.raises(NotFound, match=r"holds no config\.json and no \.gguf file"):
        load_model(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        write_gguf(tmp_path / name)
    with pytest.raises(NotFound, match=r"2 \.gguf files: name the one you mean"):
        load_model(tmp_path)
    (tmp_path / "notes.txt").write_text("not a model")
    with pytest.raises(InvalidFormat, match="does not start with the letters GGUF"):
        load_model(tmp_path / "notes.txt")


@pytest.mark.clause("LOAD-40")
@pytest.mark.parametrize("config", ['{"model_type": "llama"}', "{}", "", '{"architectures": ["LlamaForCausalLM"]}'])
def test_beside_one_gguf_file_and_no_other_tensors_config_json_says_nothing(tmp_path: Path, config: str) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    write_gguf(folder / "tiny.gguf")
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        (folder / name).write_text(config)
    assert (load_model(folder).path, load_model(folder).name) == (folder / "tiny.gguf", "repository")
    write_gguf(folder / "other.gguf")
    with pytest.raises(NotFound, match=r"holds 2 \.gguf files: name the one you mean"):
        load_model(folder)
    assert load_model(folder / "other.gguf").config.layers == 2


@pytest.mark.clause("LOAD-40")
def test_beside_safetensors_a_gguf_file_is_another_model(tmp_path: Path) -> None:
    write_gguf(write_folder(tmp_path) / "tiny.gguf", **{"llama.rope.freq_base": 7.0})
    assert load_model(tmp_path).config.rope.theta == 50000.0
    assert load_model(tmp_path / "tiny.gguf").config.rope.theta == 7.0


@pytest.mark.clause("LOAD-40")
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json", "chat_template.jinja",
             "model.safetensors.index.json", "model-00001-of-00002.safetensors"]
)  # fmt: skip
def test_one_file_of_a_directory_means_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = write_folder(tmp_path / "whole")
    (folder / "tokenizer.json").write_text(byte_level_json())
    if not (folder / name).exists():
        (folder / name).write_text("{}")
    for place in (folder / name, Location("whole", folder / name)):
        assert (load_model(place).path, load_model(place).name) == (folder, "whole")
    monkeypatch.chdir(folder)
    assert load_model(Path(name)).name == "whole"
    (folder / "config.json").rename(folder / "other.json")
    with pytest.raises(NotFound, match=r"is one file of a model, and there is no config\.json beside it"):
        load_model(folder / ("other.json" if name == "config.json" else name))


@pytest.mark.clause("LOAD-41")
def test_a_model_is_described_without_reading_its_tensors(tmp_path: Path) -> None:
    arrays = tensors()
    arrays["model.norm.weight"] = np.ones(3, np.float32)  # building the parameters would fail
    files = open_model(write_folder(tmp_path, arrays))
    assert files.config.layers == 2
    assert sum(files.source.describe(name).nbytes for name in files.source.names()) == sum(
        a.nbytes for a in arrays.values()
    )


@pytest.mark.clause("LOAD-41")
@pytest.mark.parametrize("what", ["architecture", "no sizes", "no tensors", "part of a split", "an unknown type"])
def test_words_can_be_had_where_the_model_cannot_be_run(tmp_path: Path, what: str) -> None:
    words = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.merges": ["a b"],
             "tokenizer.ggml.tokens": ["a", "b", "ab"], "tokenizer.ggml.token_type": [1, 1, 1]}  # fmt: skip
    changes: dict[str, dict[str, Any]] = {
        "architecture": {"general.architecture": "qwen9"},
        "no sizes": dict.fromkeys([key for key in METADATA if key.startswith("llama.")], ABSENT),
        "part of a split": {"split.count": 3},
    }
    metadata = changed(METADATA, **words, **changes.get(what, {}))
    stored = {} if what == "no tensors" else {"token_embd.weight": Stored.float32(np.ones((40, 64)))}
    content = gguf_bytes(metadata, stored)
    if what == "an unknown type":
        kind = content.index(b"token_embd.weight") + len("token_embd.weight") + 4 + 2 * 8
        content = content[:kind] + struct.pack("<I", 4242) + content[kind + 4 :]
    (tmp_path / "model.gguf").write_bytes(content)
    files = open_model(tmp_path / "model.gguf")
    assert files.architecture == ("qwen9" if what == "architecture" else "llama")
    assert files.vocabulary.tokenizer(files.token_ids).encode("ab", add_special_tokens=False) == [2]
    if what != "part of a split":
        shapes = [files.source.describe(name).shape for name in files.source.names()]
        assert shapes == [tensor.shape for tensor in stored.values()]
    with pytest.raises(FerrumError):
        load_model(tmp_path / "model.gguf")


@pytest.mark.clause("LOAD-41")
def test_words_of_a_directory_can_be_had_where_the_model_cannot_be_run(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, model_type="qwen9", hidden_size=None, eos_token_id=[7, 8])
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.json").write_text(byte_level_json())
    files = open_model(folder)
    assert files.architecture == "qwen9"
    tokenizer = files.vocabulary.tokenizer(files.token_ids)
    assert tokenizer.decode(tokenizer.encode("hello", add_special_tokens=False)) == "hello"
    assert tokenizer.eos_token_ids == (7, 8)
    with pytest.raises(Unsupported, match="qwen9"):
        _ = files.config
    with pytest.raises(NotFound, match="holds neither"):
        _ = files.source


@pytest.mark.clause("LOAD-50")
def test_a_model_without_a_tokenizer_loads_and_says_so_when_asked(tmp_path: Path) -> None:
    for place in (write_folder(tmp_path / "folder"), write_gguf(tmp_path / "model.gguf")):
        model = load_model(place)
        assert model.chat_template is None
        with pytest.raises(TokenizerError, match="has no tokenizer") as caught:
            _ = model.tokenizer
        assert str(place) in str(caught.value)


@pytest.mark.clause("LOAD-50")
def test_the_tokenizer_of_a_directory_is_read_when_asked_for(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "tokenizer.json").write_text("{ not a tokenizer")
    model = load_model(folder)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        _ = model.tokenizer
    (folder / "tokenizer.json").write_text(byte_level_json())
    tokenizer = model.tokenizer
    assert model.tokenizer is tokenizer
    assert tokenizer.decode(tokenizer.encode("hello", add_special_tokens=False)) == "hello"


@pytest.mark.clause("LOAD-50")
def test_loading_imports_no_tokenizer(tmp_path: Path) -> None:
    place = write_gguf(tmp_path / "model.gguf")
    code = (
        "import sys; from pathlib import Path; from ferrum.load.model import load_model\n"
        f"load_model(Path({str(place)!r}))\n"
        "print(*[name for name in ('tokenizers', 'jinja2', 'huggingface_hub', 'numba') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert result.stdout.strip() == ""


def with_tokenizer_config(folder: Path, **keys: Any) -> str:
    (folder / "tokenizer_config.json").write_text(json.dumps(keys))
    template = load_model(folder).chat_template
    assert template is not None
    return template.render(MESSAGES)


@pytest.mark.clause("LOAD-51")
@pytest.mark.clause("LOAD-52")
def test_the_chat_template_of_a_directory(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    special = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
    assert with_tokenizer_config(folder, chat_template=TEMPLATE, **special) == "<s>hello</s>"
    named = [{"name": "tools", "template": "wrong"}, {"name": "default", "template": TEMPLATE}]
    assert with_tokenizer_config(folder, chat_template=named, **special) == "<s>hello</s>"
    (folder / "chat_template.jinja").write_text("file: " + TEMPLATE)
    assert with_tokenizer_config(folder, chat_template=TEMPLATE, **special) == "file: <s>hello</s>"


@pytest.mark.clause("LOAD-51")
@pytest.mark.parametrize(
    ("keys", "error", "says"),
    [
        (
            {"chat_template": [{"name": "tools", "template": "x"}]},
            TokenizerError,
            "none of the model's chat templates is called default",
        ),
        ({"chat_template": 3}, InvalidFormat, "chat_template must be text"),
        ({"chat_template": [3]}, InvalidFormat, "chat_template must be text, or a list"),
        ({"chat_template": [{"template": ""}]}, InvalidFormat, "name is missing"),
        ({"chat_template": TEMPLATE, "bos_token": 3}, InvalidFormat, "bos_token must be the text of a token"),
    ],
)
def test_a_malformed_chat_template_is_an_error(tmp_path: Path, keys: dict[str, Any], error: type, says: str) -> None:
    folder = write_folder(tmp_path)
    with pytest.raises(error, match=says):
        with_tokenizer_config(folder, **keys)


@pytest.mark.clause("LOAD-51")
def test_the_chat_template_of_gguf(tmp_path: Path) -> None:
    keys: dict[str, Any] = {"tokenizer.chat_template": TEMPLATE, "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>"]}
    template = load_model(write_gguf(tmp_path / "model.gguf", **keys)).chat_template
    assert template is not None and template.render(MESSAGES) == "<s>hello</s>"
    keys["tokenizer.ggml.eos_token_id"] = 3
    with pytest.warns(ModelWarning, match="eos_token_id names token 3"):
        template = load_model(write_gguf(tmp_path / "model.gguf", **keys)).chat_template
    assert template is not None and template.render(MESSAGES) == "<s>hello"


@pytest.mark.clause("LOAD-51")
def test_the_real_model_has_its_words(smollm2_path: Path) -> None:
    model = load_model(smollm2_path)
    assert model.config.eos_token_ids == (2,)
    assert model.tokenizer.encode("<|im_end|>", add_special_tokens=False) == [2]
    assert model.chat_template is not None
    assert model.chat_template.render(MESSAGES, add_generation_prompt=True).endswith("<|im_start|>assistant\n")
