# ruff: noqa: E501
"""What llama.cpp makes of grammars: which it takes, and which texts match them. Needs llama-cpp-python and a model.

python tests/goldens/make_gbnf_goldens.py MODEL.gguf
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ALPHABET = ["a", "b", "x", "1", " ", '"', "é", "\n", "-", "]"]

KINDS = [
    # names
    'root ::= start " " stop\nstart ::= "go"\nstop ::= "now"', 'root ::= Item item\nItem ::= "1"\nitem ::= "a"',
    'root ::= a-b a-B 1\na-b ::= "a"\na-B ::= "b"\n1 ::= "1"', 'root ::= rule\nrule ::= json | regex\njson ::= "a"\nregex ::= "b"',
    'root ::= -\n- ::= "a"', 'root ::= ROOT\nROOT ::= "a" root2\nroot2 ::= "b"', 'start ::= "a"\nroot ::= start start',
    'root ::= TRUE\nTRUE ::= "x"', 'r-0 ::= "a"\nroot ::= r-0 r0\nr0 ::= "b"', 'Root ::= "a"', 'root ::= A a\nA ::= "a"\na ::= "b"',
    # lines and comments
    'root ::= "a" |\n  "b"', 'root ::= (\n "a"\n | "b" # c\n)\n', 'root ::= "a" # x ::= "b"\n# all\n\nroot2 ::= "b"',
    'root ::= "a"\n  | "b"', 'root ::=\n  "a"\n', '\r\nroot ::= "a"\r\n', 'root ::= "a"\rx ::= "b"', 'root ::= "a" "b"\n  "x"',
    '  root   ::=   "a"   ', '\troot\t::=\t"a"', 'root ::= "a" x ::= "b"', '# only a comment', '', 'root ::= "a"\nroot ::= "b"',
    'root ::= "a" ;', 'root := "a"', 'root: "a"', 'root ::= "a', 'root ::= "a\nb"', 'root ::= # c\n "a"', 'root ::= ("a" # )\n)',
    # empty
    'root ::= ', 'root ::= ""', 'root ::= | "a"', 'root ::= "a" |', 'root ::= ()', 'root ::= "a" ("b" | )', 'root ::= a "b"\na ::= ',
    'root ::= "" "a" ""', 'root ::= [] "a"', 'root ::= [^] "a"', 'root ::= ""*', 'root ::= []+', 'root ::= ()*', 'root ::= ("")?',
    # repetitions
    'root ::= "a"*', 'root ::= "a"+', 'root ::= "a"?', 'root ::= "ab"{2}', 'root ::= "a"{1,2}', 'root ::= "a"{2,}', 'root ::= "a"{,2}',
    'root ::= "a"{0}', 'root ::= "a"{0,0} "b"', 'root ::= ("a" "b"){1,2}', 'root ::= ("a" | "b"){2}', 'root ::= ([x]*)*', 'root ::= ([x]+)?',
    'root ::= ("x"*)*', 'root ::= "a"**', 'root ::= "a"+?', 'root ::= "a"{2}{2}', 'root ::= "a" *', 'root ::= "a" { 1 , 2 }', 'root ::= *',
    'root ::= ( * "a" )', 'root ::= "a" | *', 'root ::= "a"{}', 'root ::= "a"{a}', 'root ::= "a"{1', 'root ::= "a"{1,b}', 'root ::= "a"{1 2}',
    'root ::= "a"{2001}', 'root ::= ("a"?){2} "b"', 'root ::= ("a" "b"?)* "a"', 'root ::= [ab]* "a"', 'root ::= w "x"\nw ::= [abx]+',
    'root ::= "a"{0,3} "ab"', 'root ::= ("a"{1,2}){1,2}', 'root ::= x{2}\nx ::= "a" | "b"', 'root ::= (("a")?)+', 'root ::= "ab"*',
    # characters
    'root ::= [a-b]', 'root ::= [^a]', 'root ::= [ab1-]', 'root ::= [-a]', 'root ::= [a\\]]', 'root ::= [a\\-b]', 'root ::= [^"]',
    'root ::= ["]', 'root ::= "\\""', 'root ::= [\\x61-\\x62]', 'root ::= [\\u0061\\u00e9]', 'root ::= "\\U000000e9"', 'root ::= [\\u00e0-\\u00ff]{2}',
    'root ::= [é]', 'root ::= [^é]', 'root ::= "é"+', 'root ::= .', 'root ::= .*', 'root ::= . "a"', 'root ::= [\\n]', 'root ::= "\\n"', 'root ::= [\n]',
    'root ::= [^\\n]+', 'root ::= [b-a]', 'root ::= [b-ax]', 'root ::= [^b-a]', 'root ::= [a-]', 'root ::= [a-b-x]', 'root ::= [^^]', 'root ::= [a^]',
    'root ::= []a]', 'root ::= [a', 'root ::= [a-', 'root ::= "\\x6"', 'root ::= "\\u12"', 'root ::= "\\U0001F60"', 'root ::= "\\q"', 'root ::= [\\d]',
    'root ::= "\\/"', 'root ::= "\\-"', 'root ::= "\\["', 'root ::= [\\[]', 'root ::= [\\^]', "root ::= 'a'", 'root ::= [a]b]', 'root ::= [\\x00-\\x7f]',
    'root ::= [^\\x00-\\x60]', 'root ::= "a"[b]"x"', 'root ::= [a][b]', 'root ::= "\\U0001F600" | "a"', 'root ::= [--1]', 'root ::= [\\]\\[]',
    # what leads back
    'root ::= "a" root | "b"', 'root ::= "(" root ")" | "x"', 'root ::= "a" root "b" | ""', 'root ::= root "a" | "b"', 'root ::= a\na ::= root "x" | "b"',
    'root ::= a "b"\na ::= b\nb ::= a "x" | "x"', 'root ::= ("a" | root "b")', 'root ::= e root "x" | "b"\ne ::= ""', 'root ::= "a"? root "b" | "x"',
    'root ::= "a" x\nx ::= x "b" | "b"', 'root ::= "a"\nx ::= x "b" | "b"', 'root ::= "a" root? "b"', 'root ::= ("a" root)* "x"', 'root ::= (root "a")* "b"',
    'root ::= x*\nx ::= "a" y\ny ::= "b" | "x" x', 'root ::= "a" (root | "b")', 'root ::= root', 'root ::= a\na ::= a', 'root ::= "a" [b]* root? "x"',
    # wrong
    'root ::= a', 'root ::= "a"\nx ::= y', 'root ::= (', 'root ::= )', 'root ::= ("a"', 'root ::= "a")', 'root ::= "a" | (', 'root', 'root ::', 'root ::= "a" ::= "b"',
    '::= "a"', 'a ::= "a"', 'root ::= {2}', 'root ::= "a" {', '"a"', 'root ::= a$', 'root ::= "a" & "b"', 'root ::= <', 'root ::= /a/', 'root ::= @',
]  # fmt: skip


def some_rules(rng: random.Random) -> str:
    """A grammar at random; some make no sense."""
    names = ["root", *rng.sample(["a", "B", "b-1", "start", "X2"], rng.choice([0, 1, 2]))]

    def item(depth: int) -> str:
        kind = rng.choice(["text", "text", "class", "name", "group", "any"] if depth < 3 else ["text", "class"])
        if kind == "text":
            return json.dumps(
                "".join(rng.choice("abx1 é") for _ in range(rng.choice([0, 1, 1, 1, 2]))), ensure_ascii=False
            )
        if kind == "class":
            return f"[{rng.choice(['', '', '^'])}{''.join(rng.choice(['a', 'b', 'x', '1', 'a-b', '-', 'é']) for _ in range(2))}]"
        if kind == "name":
            return rng.choice(names)
        return "." if kind == "any" else f"({options(depth + 1)})"

    def sequence(depth: int) -> str:
        return " ".join(item(depth) + rng.choice(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,1}", "{1,}", "{2}?"])
                        for _ in range(rng.choice([0, 1, 1, 2, 2, 3])))  # fmt: skip

    def options(depth: int) -> str:
        return rng.choice([" | ", "|"]).join(sequence(depth) for _ in range(rng.choice([1, 1, 2, 2, 3])))

    return "\n".join(f"{name} ::= {options(0)}" for name in names)


def texts(rng: random.Random, grammar: str) -> list[str]:
    parts = [part for part in ["ab", "aa", "a b", "go now", "1a", "xx"] if rng.random() < 0.5]
    found = {"", *ALPHABET, *parts}
    while len(found) < 40:
        found.add("".join(rng.choice(ALPHABET[:4] * 3 + ALPHABET) for _ in range(rng.randint(1, 5))))
    return sorted(found)


class Judge:
    """llama.cpp, with the vocabulary of a model in which each byte is a token."""

    def __init__(self, path: str) -> None:
        import llama_cpp

        self.llama = llama_cpp
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), params)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.bytes: dict[int, int] = {}
        buffer = ctypes.create_string_buffer(64)
        for token in range(llama_cpp.llama_vocab_n_tokens(self.vocab)):
            if llama_cpp.llama_token_to_piece(self.vocab, token, buffer, 64, 0, False) == 1:
                self.bytes.setdefault(buffer.raw[0], token)
        self.end = llama_cpp.llama_vocab_eos(self.vocab)

    def allows(self, sampler: Any, token: int) -> bool:
        data = (self.llama.llama_token_data * 1)(self.llama.llama_token_data(token, 0.0, 0.0))
        array = self.llama.llama_token_data_array(data, 1, -1, False)
        self.llama.llama_sampler_apply(sampler, ctypes.byref(array))
        return bool(data[0].logit > -1e30)

    def matches(self, grammar: str, text: str) -> bool:
        sampler = self.llama.llama_sampler_init_grammar(self.vocab, grammar.encode(), b"root")
        for byte in text.encode():
            token = self.bytes[byte]
            if not self.allows(sampler, token):
                return False
            self.llama.llama_sampler_accept(sampler, token)
        return self.allows(sampler, self.end)

    def judged(self, grammar: str, tried: list[str]) -> list[str] | None:
        if not self.llama.llama_sampler_init_grammar(self.vocab, grammar.encode(), b"root"):
            return None
        return [text for text in tried if self.matches(grammar, text)]


def in_a_child(judge: Judge, grammar: str, tried: list[str]) -> Any:
    """What it says, "ends" where the process ends or takes too long."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        import resource
        import signal

        signal.alarm(10)
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        os.write(writing, json.dumps(judge.judged(grammar, tried)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as source:
        said = source.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else "ends"


def main(path: str) -> None:
    judge, rng = Judge(path), random.Random(0)
    grammars = list(dict.fromkeys([*KINDS, *(some_rules(rng) for _ in range(250))]))
    found = []
    for grammar in grammars:
        tried = texts(rng, grammar)
        said = in_a_child(judge, grammar, tried)
        if said != "ends":
            found.append({"grammar": grammar, "tried": tried if said is not None else [], "matches": said})
    lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in found)
    (HERE / "gbnf.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
