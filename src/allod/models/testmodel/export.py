"""Writes the trained network as a GGUF file that llama.cpp serves, chat template included."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from allod.models.testmodel import corpus
from allod.models.testmodel.training import Trained

# Mistral's control tokens. Tools are shown by name and parameters only: a model this small reads no schemas.
CHAT_TEMPLATE = """\
{{ bos_token }}
{%- if messages[0].role == 'system' %}[SYSTEM_PROMPT]{{ messages[0].content }}[/SYSTEM_PROMPT]{% endif %}
{%- if tools %}[AVAILABLE_TOOLS]
  {%- for tool in tools %} {{ tool.function.name }}(
    {%- for name in tool.function.parameters.properties %}{{ name }}
      {%- if not loop.last %}, {% endif %}{% endfor %})
  {%- endfor %}[/AVAILABLE_TOOLS]{% endif %}
{%- for m in messages %}
  {%- if m.role == 'user' %}[INST]{{ m.content }}[/INST]
  {%- elif m.role == 'tool' %}[TOOL_RESULTS]{{ m.content }}[/TOOL_RESULTS]
  {%- elif m.role == 'assistant' and m.tool_calls %}[TOOL_CALLS] [
    {%- for c in m.tool_calls %}{{ '{"name": "' }}{{ c.function.name }}{{ '", "arguments": ' }}
      {{- c.function.arguments | tojson }}{{ '}' }}
      {%- if not loop.last %}, {% endif %}{% endfor %}]{{ eos_token }}
  {%- elif m.role == 'assistant' %}{{ m.content }}{{ eos_token }}
  {%- endif %}
{%- endfor %}"""

_UNKNOWN, _CONTROL, _NORMAL = 2, 3, 1  # ggml token types


def write(trained: Trained, path: Path, *, name: str, licence: str, description: str) -> None:
    """Matrices as Q8_0, norms as float32; both read exactly by any llama.cpp."""
    shape = trained.shape
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(name)
    w.add_license(licence)
    w.add_description(description)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    w.add_context_length(shape.context)
    w.add_embedding_length(shape.width)
    w.add_block_count(shape.layers)
    w.add_feed_forward_length(shape.inner)
    w.add_head_count(shape.heads)
    w.add_head_count_kv(shape.kv_heads)
    w.add_layer_norm_rms_eps(shape.epsilon)
    w.add_rope_freq_base(shape.rope_base)
    w.add_rope_dimension_count(shape.head_width)
    w.add_vocab_size(shape.vocabulary)
    _write_tokeniser(w, trained)
    for tensor, value in trained.parameters.items():
        if value.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            w.add_tensor(tensor, gguf.quants.quantize(value, kind), raw_dtype=kind)
        else:
            w.add_tensor(tensor, np.ascontiguousarray(value))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def _write_tokeniser(w: gguf.GGUFWriter, trained: Trained) -> None:
    t = trained.tokeniser
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(t.tokens)
    controls = len(t.specials) - 1
    w.add_token_types([_UNKNOWN] + [_CONTROL] * controls + [_NORMAL] * (len(t.tokens) - len(t.specials)))
    w.add_token_merges([" ".join(pair) for pair in t.merges])
    w.add_unk_token_id(t.ids["<unk>"])
    w.add_bos_token_id(t.ids[corpus.BEGIN])
    w.add_eos_token_id(t.ids[corpus.END])
    w.add_add_bos_token(False)  # the template writes it
    w.add_chat_template(CHAT_TEMPLATE)
