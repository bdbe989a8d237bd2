"""Makes smollm2_tokenizer.json: what Hugging Face's libraries encode with the tokenizer inside the SmolLM2 GGUF.

    python tests/goldens/make_tokenizer_goldens.py path/to/SmolLM2-135M-Instruct.Q4_1.gguf

transformers 5 reads vocabulary, merges and special tokens from the GGUF but ignores `tokenizer.ggml.pre`: it cuts
text as GPT-2 does. SmolLM2 was published with its digits split one by one (a `Digits` pre-tokenizer before the
byte-level one), so the script puts that in place. The texts where this matters carry `"as_gpt2"` as well: the ids that
transformers gives unaided. Needs transformers and gguf.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

TEXTS = [
    "",
    " ",
    "  ",
    "\n",
    " \n \n\n\t\t ",
    "Hello, world!",
    "Hello  world   again    and     again",
    "  leading and trailing  ",
    "What is the capital of France?",
    "I'm sure you've seen it's they'll we'd 'RE don'T",
    "1 12 123 1234 12345 3.14159 1,000,000 1e-9 0x1F",
    "in 2024,  2025 and   2026\n 7\n\t8",
    "x =  42;\ny\t= 7\n    return  1",
    "a1b2c3 4th 5'6 x² ½ Ⅷ ٣٤ 四",
    "def f(x):\n    if x > 10:\n        return x ** 2\n    return None\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * 2.5f; } // done",
    '{"key": [1, 2.5, null, true], "text": "a\\nb"}',
    "SELECT * FROM t WHERE id = 17 AND name LIKE '%x_y%';",
    "https://example.org/a/b?c=d&e=%20f#g user@example.org C:\\dir\\file.txt",
    "# Title\n\n- item *one*\n- item `two`\n\n```python\npass\n```\n",
    "Zażółć gęślą jaźń",
    "Übergrößenträger straße naïve façade Œuvre",
    "Ελληνικά Русский язык Українська",
    "日本語のテキストです。カタカナ、ひらがな",
    "中文文本，没有空格。",
    "한국어 문장입니다",
    "العربية نص من اليمين ١٢٣",
    "עברית טקסט",
    "हिन्दी पाठ देवनागरी",
    "ภาษาไทยไม่มีช่องว่าง",
    "Tiếng Việt có dấu",
    "e\u0301 e\u0301\u0302 \u00e9 \u1e69 \ufb01",
    "😀 😃😄 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 ☕️",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋ ≤ ∑ₙ αₙ·βⁿ → ∞ ± √2",
    "“quotes” ‘single’ «guillemets» … – — • ™ © €100 £5 ¥7",
    "zero\u200bwidth\u200djoin\ufeffbom\u00a0nbsp\u3000wide\u2028line",
    "tabs\tand\rreturns\r\nmixed\x0b\x0c",
    "control \x00\x01\x7f end",
    "CamelCaseWords snake_case_words SCREAMING_CASE kebab-case",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "!!!???...,,,;;;:::---___===+++***",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "a<|im_end|>b <|endoftext|> c<|im_end|>",
    "<|im_start |> <|im_ end|> <|im_start",
    "<repo_name>x<file_sep>y<empty_output>",
    "The quick brown fox jumps over the lazy dog. " * 4,
    "\u0120 \u010a \u00c2\u00a0 literal byte symbols \u2581 ▁▁",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f \U0001d54f \U00020000",
]
CHATS = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}],
    [
        {"role": "user", "content": "Hi <b>&</b> 'you'"},
        {"role": "assistant", "content": "Hello! 😀"},
        {"role": "user", "content": "  spaces\n\nand 12  34 "},
    ],
]


def main(path: Path) -> None:
    """Writes the goldens beside this script."""
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    as_gpt2 = {text: tokenizer.encode(text, add_special_tokens=False) for text in TEXTS}
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    texts = []
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        decoded = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        entry = {"text": text, "ids": ids, "decoded": decoded}
        texts.append(entry if as_gpt2[text] == ids else entry | {"as_gpt2": as_gpt2[text]})
    chats = []
    for messages in CHATS:
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        chats.append({"messages": messages, "prompt": prompt, "ids": ids})
    lines = [
        f'"{name}": [\n' + ",\n".join(json.dumps(entry) for entry in entries) + "\n]"
        for name, entries in (("texts", texts), ("chats", chats))
    ]
    target = Path(__file__).with_name("smollm2_tokenizer.json")
    target.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    differing = sum("as_gpt2" in entry for entry in texts)
    print(f"{target}: {len(texts)} texts ({differing} with as_gpt2), {len(chats)} chats")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
