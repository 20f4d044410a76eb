#!/usr/bin/env bash
# transformers loads a Llama-3.1 or 3.2 GGUF file without its scaled rotary positions: another model, and no warning.
#
# Guess:     from_pretrained(…, gguf_file=…, quantization_config=GgufConfig(dequantize=True)) of an fp32 file gives the
#            logits of the model that the file was written from.
# Versions:  transformers 5.23.0, gguf 0.19.0, torch 2.13.0 (CPU).
# Behaviour: converters write Llama-3's scaling as a tensor of factors, `rope_freqs.weight`, and no field. The loader
#            drops tensors that have no module and says nothing; the configuration has rope_type "default". A file
#            without scaling comes back to the last bit, one with it does not.
# Seen:      largest difference of a logit 0e+00 without scaling, 1e+00 with it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
OMP_NUM_THREADS=1 "$work/venv/bin/python" - "$work" <<'PY'
import math
import sys

import gguf
import torch
from transformers import AutoModelForCausalLM, GgufConfig, LlamaConfig, LlamaForCausalLM

work, heads, size, base = sys.argv[1], 4, 16, 500_000.0
scaled = {"rope_type": "llama3", "rope_theta": base, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
names = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
         "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
         "model.embed_tokens": "token_embd", "model.norm": "output_norm"}


def factors():
    for n in range(size // 2):
        turns = 8192 * base ** (-2 * n / size) / (2 * math.pi)
        share = min(1.0, max(0.0, (turns - 1) / 3))
        yield 1 / ((1 - share) / 32 + share)


def gap(rope):
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=300, hidden_size=heads * size, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=131072,
                         rope_parameters=rope, tie_word_embeddings=True)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.dim() == 1))
    path = f"{work}/{rope['rope_type']}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    for key, value in {"block_count": 2, "context_length": 131072, "embedding_length": heads * size,
                       "feed_forward_length": 128, "attention.head_count": heads, "attention.head_count_kv": heads,
                       "vocab_size": 300}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.rope.freq_base", base)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    for name, weight in model.named_parameters():
        weight = weight.detach()
        if "q_proj" in name or "k_proj" in name:  # rows that rotate together stand side by side
            weight = weight.view(heads, 2, size // 2, -1).transpose(1, 2).reshape(weight.shape)
        parts = name.removesuffix(".weight").removeprefix("model.layers.").split(".", 1)
        place = f"blk.{parts[0]}.{names[parts[1]]}" if name.startswith("model.layers.") else names[".".join(parts)]
        writer.add_tensor(f"{place}.weight", weight.contiguous().numpy())
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", torch.tensor(list(factors())).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    back = AutoModelForCausalLM.from_pretrained(
        work, gguf_file=path.rpartition("/")[2], dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    ).eval()
    ids = torch.arange(3, 203)[None]
    with torch.no_grad():
        return float((back(ids).logits - model(ids).logits).abs().max()), back.config.rope_parameters["rope_type"]


plain, with_scaling = gap({"rope_type": "default", "rope_theta": base}), gap(scaled)
print(f"without scaling {plain[0]:.0e} ({plain[1]}), with Llama-3's {with_scaling[0]:.0e} ({with_scaling[1]})")
assert plain[0] < 1e-4, "a file without scaling does not come back either"
assert with_scaling[0] > 1e-2, "the scaling is read now: this finding is out of date"
PY
