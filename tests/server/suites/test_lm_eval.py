"""lm-evaluation-harness scores the same weights alike, asked through `/v1/completions` and computed by transformers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.server.suites import foreign, places
from tests.server.suites.serving import served

TASKS = ["ferrum_choice", "ferrum_generate"]


def evaluated(
    python: str, model: str, arguments: str, tasks: Path, work: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The scores, and the answers to all requests: numbers for choices, texts for generation."""
    command = [python, "-m", "lm_eval", "--model", model, "--model_args", arguments, "--tasks", ",".join(TASKS)]
    command += ["--include_path", str(tasks), "--log_samples", "--output_path", str(work), "--batch_size", "4"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OPENAI_API_KEY": "none"}
    subprocess.run(command, check=True, env={**os.environ, **offline, "HF_HOME": str(work / "cache")})
    scores = json.loads(next(work.rglob("results_*.json")).read_text(encoding="utf-8"))["results"]
    answers = {}
    for task in TASKS:
        lines = next(work.rglob(f"samples_{task}_*.jsonl")).read_text(encoding="utf-8").splitlines()
        answers[task] = [
            each["filtered_resps"] for each in sorted(map(json.loads, lines), key=lambda one: one["doc_id"])
        ]
    return scores, answers


def written_tasks(folder: Path) -> Path:
    """The task files, with the place of their questions."""
    own = places.HERE / "lm_eval_tasks"
    folder.mkdir()
    for path in own.glob("*.yaml"):
        text = path.read_text(encoding="utf-8").replace("QUESTIONS", str(own / "questions.jsonl"))
        (folder / path.name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.suites
@pytest.mark.clause("SUITE-05")
def test_lm_eval_scores_as_transformers_does(tmp_path: Path) -> None:
    outcomes: dict[str, str] = {}
    python, model = places.python("lm_eval"), tmp_path / "model"
    subprocess.run([python, str(places.HERE / "make_random_model.py"), str(model)], check=True)
    tasks = written_tasks(tmp_path / "tasks")
    scores, answers = evaluated(python, "hf", f"pretrained={model},dtype=float32", tasks, tmp_path / "hf")
    with served("--model", str(model), "--served-model-name", "random") as server:
        for backend in (f"huggingface,tokenizer={model}", "remote"):
            arguments = f"base_url={server.url}/v1/completions,model=random,tokenizer_backend={backend},max_length=512"
            folder = tmp_path / backend.partition(",")[0]
            ours, told = evaluated(python, "local-completions", f"{arguments},num_concurrent=2", tasks, folder)
            assert told["ferrum_generate"] == answers["ferrum_generate"]
            for mine, theirs in zip(told["ferrum_choice"], answers["ferrum_choice"], strict=True):
                assert [greedy for _, greedy in mine] == [greedy for _, greedy in theirs]
                assert [float(each) for each, _ in mine] == pytest.approx([float(each) for each, _ in theirs], rel=1e-4)
            for task in TASKS:
                assert numbers(ours[task]) == numbers(scores[task])
                outcomes.update({f"{backend} {task} {number}": "passed" for number in range(len(told[task]))})
    foreign.keep("lm_eval", "lm-evaluation-harness, answers as transformers gives them", outcomes)


def numbers(scores: dict[str, Any]) -> dict[str, Any]:
    """The scores without their standard errors, which are drawn at random."""
    return {name: value for name, value in scores.items() if "stderr" not in name}
