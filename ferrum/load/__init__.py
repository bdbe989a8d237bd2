"""From files to a model: GGUF and safetensors, their configurations, names, and where models come from.

Owns: everything a file format says and the rest of the project need not know. A model leaves this room as one
`ModelConfig` and one `DecoderParams`, whatever it was stored as. Refuses to know: engines and backends; arrays made
here are NumPy, and the engine moves them.

| file | noun |
|---|---|
| `resolve` | a model's name -> a place on this machine |
| `packaged` | the models that come from the package index, found on this machine |
| `hub` | the models of the Hugging Face hub |
| `download`, `pip`, `pip_child` | a packaged model fetched and verified |
| `model` | a place -> configuration, parameters, tokenizer |
| `gguf`, `gguf_parts`, `safetensors` | the two file formats |
| `ggml`, `scaled`, `quants`, `codebooks`, `conversion` | how numbers are stored, and stored otherwise |
| `quantization_config`, `packed`, `quantized` | quantised safetensors as the matrices that they mean |
| `config_gguf`, `config_json`, `text_part`, `rope_gguf`, `rope_json` | how a model is described |
| `limits`, `known_keys` | numbers that no model has; what may stand in a description besides |
| `families`, `families_experts`, `families_gguf`, `family`, `layer_rules` | what families compute: a row for each |
| `families_encoders`, `pooling` | the same of encoders; how texts become vectors, where files say it |
| `layout`, `layouts_json`, `source` | where each tensor is; what a file of tensors offers |
| `params`, `tree`, `features` | tensors to parts, parts to a decoder; what it computes, in words |
| `shapes`, `random_model` | models without files: sizes, and random weights |

Specs: LOAD, QUANT. Next: `ferrum.load.resolve`.
"""
