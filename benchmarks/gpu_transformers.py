"""transformers beside ferrum for `gpu_bench.py`: the same model, on the very same weights in the GPU's memory.

Arrays are handed over by DLPack, so that 16 GB are there once. transformers runs eagerly and compiled (mode
"reduce-overhead": CUDA graphs), with a static cache, in inference mode; greedy tokens stay on the GPU. Compiling takes
minutes, so the shortest list of batches comes first and whatever is done is told at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import numpy as np

from ferrum.config import ModelConfig
from ferrum.load.random_model import RandomModel

ROOM = 128
"""Tokens of a cache beyond a prompt."""


def shared(array: Any, torch: Any) -> Any:
    """The tensor over the same memory. Two-byte types go as integers: not every library exports bfloat16."""
    if array.dtype.itemsize != 2:
        return torch.from_dlpack(array)
    return torch.from_dlpack(array.view(np.int16)).view(getattr(torch, str(array.dtype)))


def model_on(made: RandomModel, torch: Any, device: str) -> Any:
    """LlamaForCausalLM around the weights of a random model."""
    from transformers import LlamaForCausalLM

    config = configuration(made.config)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    tensors = {name: shared(array, torch) for name, array in named(made)}
    kind = tensors["lm_head.weight"].dtype
    ones = torch.ones(made.config.hidden_size, dtype=kind, device=device)
    wanted = model.state_dict()
    tensors |= {name: ones for name in wanted if name.endswith("norm.weight")}
    model.load_state_dict(tensors, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)  # has no weights, only numbers
    return model.eval()


def configuration(config: ModelConfig) -> Any:
    from transformers import LlamaConfig

    assert config.rope is not None
    return LlamaConfig(
        vocab_size=config.vocab_size, hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
        num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim, max_position_embeddings=config.max_positions, rms_norm_eps=config.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope.theta}, tie_word_embeddings=False,
        attn_implementation="sdpa",
    )  # fmt: skip


def named(made: RandomModel) -> Iterator[tuple[str, Any]]:
    """Every matrix by transformers' name."""
    params = made.params
    yield "model.embed_tokens.weight", params.embedding.table.data
    yield "lm_head.weight", params.head.linear.weight.data
    for number, layer in enumerate(params.layers):
        (attention,), (mlp,) = layer.stages
        place = f"model.layers.{number}"
        for ours, theirs in (("query", "q"), ("key", "k"), ("value", "v"), ("output", "o")):
            yield f"{place}.self_attn.{theirs}_proj.weight", getattr(attention.body, ours).weight.data
        for part in ("gate", "up", "down"):
            yield f"{place}.mlp.{part}_proj.weight", getattr(mlp.body, part).weight.data


class Talker:
    """One batch with a cache of its own."""

    def __init__(self, model: Any, torch: Any, batch: int, length: int, compiled: bool) -> None:
        from transformers import StaticCache

        self._model, self._torch, self._batch = model, torch, batch
        self._device = model.lm_head.weight.device
        self._cache = StaticCache(config=model.config, max_cache_len=length + ROOM)
        parameters = inspect.signature(type(model).forward).parameters
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"
        self._call = torch.compile(self._forward, mode="reduce-overhead") if compiled else self._forward

    def _forward(self, tokens: Any, positions: Any) -> Any:
        more = {self._cache_name: self._cache, "use_cache": True, "logits_to_keep": 1}
        return self._model(tokens, position_ids=positions, **more).logits[:, -1].argmax(-1, keepdim=True)

    def prefill(self, tokens: Any) -> Any:
        """[sequences, tokens] -> the next token of each."""
        self._cache.reset()
        positions = self._torch.arange(tokens.shape[1], device=self._device)[None].expand(self._batch, -1)
        return self._forward(tokens, positions)

    def decode(self, tokens: Any, start: int, steps: int) -> Any:
        for position in range(start, start + steps):
            self._torch.compiler.cudagraph_mark_step_begin()
            positions = self._torch.full((self._batch, 1), position, device=self._device)
            tokens = self._call(tokens, positions).clone()
        return tokens


def compare(
    model: Any, torch: Any, batches: tuple[int, ...], prompts: tuple[int, ...], steps: int,
    tell: Callable[[str, Any], None],
) -> None:  # fmt: skip
    """Tells tokens per second as they are known: prefill of one prompt, decode of batches after the shortest one."""
    random, device = np.random.default_rng(0), model.lm_head.weight.device

    def tokens(batch: int, length: int) -> Any:
        return torch.from_numpy(random.integers(0, model.config.vocab_size, (batch, length))).to(device)

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def best(run: Callable[[], Any], tries: int = 3) -> float:
        taken = []
        for _ in range(tries + 1):
            wait()
            started = perf_counter()
            run()
            wait()
            taken.append(perf_counter() - started)
        return min(taken[1:])

    with torch.inference_mode():
        for length in prompts:
            talker, prompt = Talker(model, torch, 1, length, compiled=False), tokens(1, length)
            tell(f"eager.prefill {length}", length / best(lambda talker=talker, prompt=prompt: talker.prefill(prompt)))
        length = min(prompts)
        for compiled in (False, True):
            for batch in batches:
                talker = Talker(model, torch, batch, length, compiled)
                first = talker.prefill(tokens(batch, length))
                run = lambda talker=talker, first=first: talker.decode(first, length, steps)  # noqa: E731
                how = "compiled" if compiled else "eager"
                tell(f"{how}.decode {batch}", batch * steps / best(run, tries=4))


def logits_of(model: Any, torch: Any, tokens: list[int]) -> np.ndarray:
    """float32 [tokens, vocab], teacher-forced."""
    with torch.inference_mode():
        found = model(torch.tensor([tokens], device=model.lm_head.weight.device), use_cache=False).logits[0]
    return found.float().cpu().numpy()


def difference(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    return {
        "relative_l2": float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)),
        "largest": float(np.abs(ours - theirs).max()),
        "same_best": float((ours.argmax(1) == theirs.argmax(1)).mean()),
    }
