"""Makes tests/goldens/class_defaults.json: what configuration classes of transformers assume where a file says nothing.

    python -m tests.goldens.make_class_defaults

Of each family, by model_type: the keys of a configuration for which nothing but sizes was given, without those of which
it is known that they compute nothing. Needs transformers (extra `oracle`).
"""

from __future__ import annotations

import json
from typing import Any

from transformers import CONFIG_MAPPING

from ferrum.load.families import HUGGING_FACE_FAMILIES
from ferrum.load.known_keys import CONFIG_HARMLESS
from tests.load.class_defaults import FILE, SIZES


def assumed(model_type: str) -> dict[str, Any]:
    config = CONFIG_MAPPING[model_type](**SIZES)
    written = json.loads(json.dumps(config.to_dict()))
    return {key: value for key, value in sorted(written.items()) if key not in CONFIG_HARMLESS}


def main() -> None:
    rows = (f"{json.dumps(name)}: {json.dumps(assumed(name))}" for name in sorted(HUGGING_FACE_FAMILIES))
    FILE.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
