"""Makes sentencepiece.json: small SentencePiece models as GGUF metadata, and what the library itself encodes with them.

    python tests/goldens/make_sentencepiece_goldens.py

The models are trained on the few sentences below. Each has the settings of a family: spaces kept as Llama keeps them,
no space in front as in Gemma, text tidied as T5 does it. Character rules are a handful, since the usual ones take
hundreds of kilobytes. Needs sentencepiece.
"""

from __future__ import annotations

import base64
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

CORPUS = """The river runs to the sea, and the sea does not fill. What is the name of the river?
I'm sure they'll see it there; we've seen them, haven't we? Where there are ships there are rats.
She said that the rain, which had fallen on the roof all night, would end before the morning came.
def total(values): return sum(value for value in values if value > 0)  # 10, 100, 1000, 2024
for i in range(10): print(i, i * i, "done")
The bakery on the corner sells bread, rolls and cakes; the butcher beside it sells sausages and ham.
Der Fluss fließt ins Meer, und das Meer wird nicht voll. Wie heißt der Fluss? Schöne Grüße über die Straße.
La rivière coule vers la mer, et la mer n'est pas remplie. Où est la forêt? À côté de l'école, peut-être.
El río corre hacia el mar y el mar no se llena. ¿Cómo se llama el río? ¡Mañana será otro día!
Rzeka płynie do morza, a morze się nie napełnia. Jak się nazywa ta rzeka? Zażółć gęślą jaźń.
Река течёт в море, а море не наполняется. Как называется эта река? Хорошо, что дождь кончился.
Ο ποταμός κυλά προς τη θάλασσα, και η θάλασσα δεν γεμίζει. Πώς λέγεται ο ποταμός;
川は海に流れるが、海は満ちない。川の名前は何ですか。海の水は青い。
河流入海，海却不满。这条河叫什么名字？海水是蓝色的。
강은 바다로 흐르지만 바다는 차지 않는다. 강의 이름은 무엇입니까?
النهر يجري إلى البحر والبحر لا يمتلئ. ما اسم النهر؟
The ship is on the sea 😀 and the rat is on the ship 😀. 3.14 1,000 42% 7:30""".splitlines()

TEXTS = [
    "", " ", "  ", "   ", "\n", "\n\n", "\t", " \n ", "a", " a", "a ", " a ", "  a", "a  ", "  a  b  ", "a   b    c",
    "The river runs to the sea.", "the the  the   the", "What is the name of the ship?", "THE RIVER", "The\nriver\n",
    "\nThe river", "The\n\n\nriver", "The\triver\t\truns", "tabs\tand  spaces \t mixed", "line\r\nline\r\n",
    "I'm sure we've seen they'll", "sausages,sausages;sausages", "unbelievable thereabouts nevertheless",
    "0", "1", "12", "123", "1234567890", "3.14159", "1,000,000", "in 2024 and 1999", "10  20   30", "a1b2c3", "0x1F",
    "def f(x):\n    return x + 1\n", "for i in range(100):\n\tprint(i)\n", "if (a && b) { c = d[i]; }", "a_b-c/d\\e",
    "x  =  1", "    indented", "https://example.org/a?b=c&d=%20", "name@example.org", "#hash $5 %d ^ & * ~ ` |",
    "¿Cómo está el río?", "fließt über die Straße", "où est la forêt", "Zażółć gęślą jaźń", "Река течёт в море",
    "ποταμός", "川は海に流れる", "海の水は青い。川の名前", "河流入海，海却不满", "강은 바다로", "النهر يجري إلى البحر",
    "mixed 海 and река and 😀", "龍鳳麒麟", "한글", "ไทย", "हिन्दी", "עברית", "😀", "😀😀", "😃", "👍🏽",
    "👩‍👩‍👧‍👦", "🏳️‍🌈 🇫🇷",
    "a😃b", "e\u0301", "e\u0301\u0302 é", "\u0301", "n\u0303 ñ", "ﬁsh", "①②③", "ＡＢＣ　ａｂｃ",
    "½ ² ™", "“quotes” – — …",
    "\u00a0nbsp\u00a0", "\u3000", "zero\u200bwidth", "\ufeffbom", "\u2028", "\x00", "\x01\x7f",
    "<0x0A>", "<0x41><0x42>",
    "▁", "▁▁", "a▁b", " ▁ ", "▁ a ▁", "<", ">", "<0x", "< 0x0A >", "aaaaaaaaaaaaaaaaaaaa", "abababababababab",
    "ththththehehethethe", "seaseaseasea seas", "!!!???...,,,", "\U0001d54f \U00020000 \U0010ffff", "....the....",
    "ﾊﾞｶﾞﾊ", "カ\u3099カ", "\u1100\u1161\u11a8", "a\r\nb", " \r\n", "\r\n\r\n", "\x04",
    "\x04a\x04 \x04", " \x04 ", "①\x04 ｶﾞ",
    "<think>", "a<think>b", "<think><think>", "the <think> sea </think>the", "<thin", "k>", "<mask>the<mask> sea",
]  # fmt: skip

CHARACTERS = {
    "ﬁ": "fi",
    "①": "1",
    "②": "2",
    "　": " ",
    "\t": " ",
    "\n": " ",
    "½": "1/2",
    "™": "TM",
    "e\u0301": "é",
    "\u200b": "",
    "\x04": "",
    "\r": " ",
    "ﾊ": "ハ",
    "ﾊﾞ": "バ",
    "ｶﾞ": "ガ",
    "カ\u3099": "ガ",
    "\u1100\u1161\u11a8": "각",
}
CHARACTERS |= {chr(ord("Ａ") + i): chr(ord("A") + i) for i in range(3)}

MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "bpe", "byte_fallback": True, "remove_extra_whitespaces": False},
    "gemma": {
        "model_type": "bpe", "byte_fallback": True, "remove_extra_whitespaces": False, "add_dummy_prefix": False,
        "split_digits": True, "allow_whitespace_only_pieces": True,
        "user_defined_symbols": ["▁▁▁▁", "<think>", "<mask>"],
    },
    "tidy": {"model_type": "bpe", "byte_fallback": True, "remove_extra_whitespaces": True, "characters": CHARACTERS},
    "bytes": {"model_type": "unigram", "byte_fallback": True, "remove_extra_whitespaces": False},
    "kept": {
        "model_type": "unigram", "byte_fallback": True, "remove_extra_whitespaces": False, "characters": CHARACTERS,
    },
    "t5": {"model_type": "unigram", "remove_extra_whitespaces": True, "characters": CHARACTERS, "vocab_size": 300},
}  # fmt: skip


def train(characters: dict[str, str] | None = None, **settings: Any) -> bytes:
    """A serialized model. The rarest characters of the corpus stay out of it."""
    written = io.BytesIO()
    common = {"vocab_size": 560, "character_coverage": 0.985, "num_threads": 1, "minloglevel": 2}
    with tempfile.TemporaryDirectory() as folder:
        rules: dict[str, str] = {"normalization_rule_name": "identity"}
        if characters is not None:
            table = Path(folder, "rules.tsv")
            lines = (
                "\t".join(" ".join(f"{ord(c):X}" for c in side) for side in rule) for rule in sorted(characters.items())
            )
            table.write_text("".join(line + "\n" for line in lines))
            rules = {"normalization_rule_tsv": str(table)}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 3), model_writer=written, **{**common, **rules, **settings}
        )
    return written.getvalue()


def metadata(model: sentencepiece_model_pb2.ModelProto) -> dict[str, Any]:
    """The `tokenizer.ggml.*` values of a model; user-defined pieces have plain spaces, as converters write them."""
    kinds = sentencepiece_model_pb2.ModelProto.SentencePiece.Type
    user_defined = kinds.Value("USER_DEFINED")
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    return {
        "model": "t5" if trainer.model_type == trainer.UNIGRAM else "llama",
        "tokens": [p.piece.replace("▁", " ") if p.type == user_defined else p.piece for p in model.pieces],
        "scores": [float(str(np.float32(p.score))) for p in model.pieces],  # the shortest text of the same number
        "token_type": [int(p.type) for p in model.pieces],
        "unknown_token_id": trainer.unk_id,
        "bos_token_id": trainer.bos_id,
        "eos_token_id": trainer.eos_id,
        "add_space_prefix": normalizer.add_dummy_prefix,
        "remove_extra_whitespaces": normalizer.remove_extra_whitespaces,
        "precompiled_charsmap": base64.b64encode(normalizer.precompiled_charsmap).decode(),
    }


def main() -> None:
    """Writes the goldens beside this script."""
    entries = []
    for name, settings in MODELS.items():
        serialized = train(**settings)
        processor = sentencepiece.SentencePieceProcessor(model_proto=serialized)
        described = metadata(sentencepiece_model_pb2.ModelProto.FromString(serialized))
        encoded = [processor.encode(text) for text in TEXTS]
        fields = [f'"{key}": {json.dumps(value)}' for key, value in described.items()]
        cases = [json.dumps({"ids": ids, "decoded": processor.decode(ids)}) for ids in encoded]
        entries.append(
            f'"{name}": {{\n"metadata": {{\n' + ",\n".join(fields) + '\n},\n"cases": [\n' + ",\n".join(cases) + "\n]}"
        )
    texts = ",\n".join(json.dumps(text) for text in TEXTS)
    target = Path(__file__).with_name("sentencepiece.json")
    body = '{\n"texts": [\n' + texts + '\n],\n"models": {\n' + ",\n".join(entries) + "\n}}\n"
    target.write_text(body, encoding="utf-8")
    print(f"{target}: {len(MODELS)} models, {len(TEXTS)} texts, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
