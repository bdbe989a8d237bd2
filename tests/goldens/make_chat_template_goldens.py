"""Makes chat_templates.json: what Hugging Face transformers renders for templates that use each part of the dialect.

    python tests/goldens/make_chat_template_goldens.py

Needs transformers; no model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers.utils.chat_template_utils import _compile_jinja_template

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is 1 < 2 & 'é' > \"a\"?"},
    {
        "role": "assistant",
        "content": "Yes. 😀",
        "tool_calls": [{"name": "f", "arguments": {"z": 1, "a": [None, True]}}],
    },
    {"role": "user", "content": "  Thanks!\n"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
TEMPLATES = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "blocks on lines of their own": "{{ bos_token }}\n{% for m in messages %}\n    {% if m.role == 'user' %}\n"
    "[INST] {{ m.content | trim }} [/INST]\n    {% elif m.role == 'assistant' -%}\n  {{ m.content }}{{ eos_token }}\n"
    "    {%- endif %}\n{% endfor %}\n",
    "loop controls": "{% for m in messages %}{% if loop.index0 == 0 %}{% continue %}{% endif %}{{ m.role }},"
    "{% if loop.index == 3 %}{% break %}{% endif %}{% endfor %}",
    "tojson": "{{ messages | tojson }}\n{{ tools | tojson(indent=2) }}\n"
    "{{ messages[2].tool_calls[0].arguments | tojson(separators=(',', ':'), sort_keys=True) }}"
    "{{ 'é<' | tojson(true) }}",
    "generation": "{% for m in messages %}\n{% if m.role == 'assistant' %}\n{% generation %}\n{{ m.content }}\n"
    "{% set x = 1 %}\n{% endgeneration %}\n{% else %}\n{{ m.content }}\n{% endif %}\n{% endfor %}"
    "{% generation %}{% set x = 1 %}{{ x }}{% endgeneration %}{{ x is defined }}",
    "namespace": "{% set ns = namespace(last=-1, found=false) %}{% for m in messages %}{% if m.role == 'user' %}"
    "{% set ns.last = loop.index0 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.last }} {{ ns.found }}",
    "undefined": "{{ missing }}[{{ pad_token is defined }}|{{ tools is defined and tools is not none }}|"
    "{{ documents is defined }}|{{ documents }}|{{ messages[0].name is defined }}]",
    "python methods": "{{ messages[0].content.split(' ')[-1].upper() }}{{ messages[1:] | length }}"
    "{{ messages[0].items() | list }}{{ dict(a=1, b='é') }}{{ dict.fromkeys('ab', 0) }}{{ messages[0].get('x', '-') }}",
    "macros": "{% macro show(m, mark='#') %}{{ mark }}{{ m.role }}{% endmacro %}{% for m in messages[::-1] %}"
    "{{ show(m) }}{{ show(m, mark='*') }}{% endfor %}",
    "types": "{% for m in messages %}{{ m is mapping }}{{ m.content is string }}{{ m is iterable }}{% endfor %}"
    "{{ messages | map(attribute='role') | join(', ') }}"
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "extra variables": "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    "{{ style }}",
}
VARIABLES: dict[str, Any] = {
    "tools": TOOLS,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "enable_thinking": False,
    "style": "plain",
}


def main() -> None:
    """Writes the goldens beside this script."""
    cases = [
        {
            "name": name,
            "template": source,
            "text": _compile_jinja_template(source).render(messages=MESSAGES, documents=None, **VARIABLES),
        }
        for name, source in TEMPLATES.items()
    ]
    goldens = {"messages": MESSAGES, "variables": VARIABLES, "cases": cases}
    target = Path(__file__).with_name("chat_templates.json")
    target.write_text(json.dumps(goldens, indent=1) + "\n", encoding="utf-8")
    print(f"{target}: {len(cases)} templates")


if __name__ == "__main__":
    main()
