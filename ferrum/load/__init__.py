"""From files to a model: GGUF and safetensors, their configurations, names, and where models come from.

Owns: everything about file formats. A model leaves this room as one `ModelConfig` and one `DecoderParams`, whatever the
format of its files. Refuses to know: engines and backends. Arrays made here are NumPy's; the engine moves them.

| file | noun |
|---|---|
| `resolve` | a model's name -> a place on this machine |
| `packaged` | the models of the package index, found on this machine |
| `hub` | the models of the Hugging Face hub |
| `download`, `pip`, `pip_child` | a packaged model fetched and verified |
| `model` | a place -> configuration, parameters, tokenizer |
| `gguf`, `gguf_parts`, `safetensors` | the two file formats |
| `ggml`, `scaled`, `quants`, `codebooks`, `conversion` | how numbers are stored, and converted to another type |
| `quantization_config`, `packed`, `quantized` | quantised safetensors, decoded to matrices |
| `config_gguf`, `config_json`, `text_part`, `rope_gguf`, `rope_json` | how a model is described |
| `limits`, `known_keys` | numbers that are refused; keys that may be ignored |
| `families`, `families_experts`, `families_gguf`, `family`, `layer_rules` | what families compute: one row each |
| `families_encoders`, `pooling` | the same for encoders; how a text becomes one vector |
| `layout`, `layouts_json`, `source` | where each tensor is; what a file of tensors offers |
| `params`, `tree`, `features` | from tensors to parts, from parts to a decoder; what it computes, in words |
| `shapes`, `random_model` | models without files: sizes, and random weights |

Specs: LOAD, QUANT. Next: `ferrum.load.resolve`.
"""
