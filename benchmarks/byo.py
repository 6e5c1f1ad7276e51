"""Models of other libraries, by their own class or factory and nothing else: verified, or refused with what to do.

    python -m benchmarks.byo                     every model, as the table of docs/bring-your-own.md
    python -m benchmarks.byo llama t5            these alone
    python -m benchmarks.byo --schedule zbv      in another order of actions
    python -m benchmarks.byo --orders llama      one model in every order of the zoo, by virtual and by real ranks

Toy sizes and random weights: four stages, virtual ranks, two steps of AdamW. A library that is missing is a row too.
Models of ``own_models.py`` stand for what has no library: they say nothing of pipelines either.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pipezoo.api import parts
from pipezoo.data.batch import Batch, generator
from pipezoo.errors import PipezooError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.component import Component
from pipezoo.experiment.experiment import Experiment
from pipezoo.experiment.python_component import PythonComponent
from pipezoo.experiment.registry import conf_dir
from pipezoo.launch import Processes, Virtual
from pipezoo.results.run_dir import write_json
from pipezoo.tasks import train

V, W, D, H, LENGTH, ROWS, CLASSES = 64, 16, 4, 4, 8, 2, 5
WRITTEN = ("early_receives", "split_backward", "unbalanced", "v_shape")  # orders whose sizes stand in a file
REAL = ("1f1b", "zbv", "interleaved_zero_bubble")  # orders that two processes run, too
LIBRARIES = ("transformers", "timm", "torchvision", "peft", "benchmarks")
SIZES = {
    "vocab_size": V,
    "hidden_size": W,
    "num_hidden_layers": D,
    "num_attention_heads": H,
    "intermediate_size": 2 * W,
}
DECODER = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64}
VISION = {
    **{k: v for k, v in SIZES.items() if k != "vocab_size"},
    "image_size": 32,
    "patch_size": 8,
    "num_labels": CLASSES,
}
TINY_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": W, "depth": D, "num_heads": H}


def tokens(batch_size: int, seed: int, *names: str, classes: bool = False) -> Callable[[int], Batch]:
    """Token numbers by name, with a mask, a decoder's input or labels where these are asked for."""

    def batch(step: int) -> Batch:
        ids = torch.randint(1, V, (batch_size, LENGTH), generator=generator(seed, step))
        lengths = torch.randint(LENGTH // 2, LENGTH + 1, (batch_size, 1), generator=generator(seed, step, 1))
        known = {
            "input_ids": ids,
            "attention_mask": (torch.arange(LENGTH) < lengths).long(),
            "decoder_input_ids": ids.roll(1, 1),
            "labels": ids,
            "input_features": torch.randn(batch_size, 8, 32, generator=generator(seed, step, 2)),
        }
        return Batch((), {name: known[name] for name in names}, ids[:, 0] % CLASSES if classes else ids)

    return batch


def pairs(batch_size: int, seed: int) -> Callable[[int], Batch]:
    """Two sequences of vectors, and the second one a place later."""

    def batch(step: int) -> Batch:
        src, tgt = torch.randn(2, batch_size, LENGTH, W, generator=generator(seed, step))
        return Batch((), {"src": src, "tgt": tgt}, tgt.roll(-1, 1))

    return batch


def images(batch_size: int, seed: int) -> Callable[[int], Batch]:
    def batch(step: int) -> Batch:
        x = torch.randn(batch_size, 3, 32, 32, generator=generator(seed, step))
        return Batch((x,), {}, (x.mean((1, 2, 3)).abs() * 1000).long() % CLASSES)

    return batch


@dataclass(frozen=True)
class Model:
    """What a YAML file would say: a target, its arguments, the part of its output; what it eats, where it is cut."""

    target: str
    arguments: dict[str, Any] = field(default_factory=dict)
    output: str | None = None
    loss: str = "cross_entropy"
    data: Callable[..., Any] = images
    at: tuple[str, ...] = ()


def causal(
    kind: str,
    output: str | None = "logits",
    names: tuple[str, ...] = ("input_ids",),
    head: str = "ForCausalLM",
    **more: Any,
) -> Model:
    config = {"_target_": f"transformers.{kind}Config", **DECODER, **more}
    loss = "token_cross_entropy" if output == "logits" else "model"
    return Model(f"transformers.{kind}{head}", {"config": config}, output, loss, partial(_named, names))


def _in_order(names: tuple[str, ...], batch_size: int, seed: int) -> Callable[[int], Batch]:
    named = tokens(batch_size, seed, *names)

    def batch(step: int) -> Batch:
        _, inputs, target = named(step)
        return Batch(tuple(inputs.values()), {}, target)

    return batch


def own(name: str, names: tuple[str, ...] = ("input_ids",), **arguments: Any) -> Model:
    output = "logits" if arguments else None
    data = partial(_in_order, names)
    return Model(f"benchmarks.own_models.{name}", arguments, output, "token_cross_entropy", data)


def adapted(kind: str, targets: list[str], **more: Any) -> Model:
    """A frozen model with adapters that learn, by peft."""
    base = causal(kind, **more)
    lora = {"_target_": "peft.LoraConfig", "r": 4, "target_modules": targets, "init_lora_weights": "gaussian"}
    arguments = {"model": {"_target_": base.target, **base.arguments}, "peft_config": lora}
    return replace(base, target="peft.get_peft_model", arguments=arguments)


def _named(names: tuple[str, ...], batch_size: int, seed: int, classes: bool = False) -> Callable[[int], Batch]:
    return tokens(batch_size, seed, *names, classes=classes)


def pair(kind: str, names: tuple[str, ...], **config: Any) -> Model:
    node = {"_target_": f"transformers.{kind}Config", "vocab_size": V, "d_model": W, **config}
    target = f"transformers.{kind}ForConditionalGeneration"
    return Model(target, {"config": node}, "logits", "token_cross_entropy", partial(_named, names))


def of_timm(name: str, **more: Any) -> Model:
    return Model("timm.create_model", {"model_name": name, "num_classes": CLASSES, **more})


LLAMA = {"_target_": "transformers.LlamaConfig", **DECODER}
SPEECH = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": H, "decoder_attention_heads": H}
MODELS: dict[str, Model] = {
    "llama": causal("Llama"),
    "llama, mask": causal("Llama", names=("input_ids", "attention_mask")),
    "llama, labels inside of forward": causal("Llama", "loss", ("input_ids", "labels")),
    "llama, attention dropout": causal("Llama", attention_dropout=0.1),
    "llama, activation checkpoints": own("llama", config=LLAMA, checkpoints=True),
    "llama, compiled blocks": own("llama", config=LLAMA, compiled=True),
    "llama, LoRA (peft)": adapted("Llama", ["q_proj", "v_proj"]),
    "gpt2, LoRA (peft)": adapted("GPT2", ["c_attn"], head="LMHeadModel"),
    "gpt2, tied": causal("GPT2", head="LMHeadModel"),
    "gpt2, untied": causal("GPT2", head="LMHeadModel", tie_word_embeddings=False),
    "qwen3": causal("Qwen3", head_dim=8),
    "mistral, sliding window": causal("Mistral", sliding_window=4),
    "mixtral (experts)": causal("Mixtral", num_local_experts=4, num_experts_per_tok=2),
    "mamba": Model(
        "transformers.MambaForCausalLM",
        {"config": {"_target_": "transformers.MambaConfig", "vocab_size": V, "hidden_size": W, "num_hidden_layers": D,
                    "state_size": 4, "conv_kernel": 3, "expand": 2}},
        "logits", "token_cross_entropy", partial(_named, ("input_ids",)),
    ),
    "bert classifier, mask": Model(
        "transformers.BertForSequenceClassification",
        {"config": {"_target_": "transformers.BertConfig", **SIZES, "num_labels": CLASSES}},
        "logits", "cross_entropy", partial(_named, ("input_ids", "attention_mask"), classes=True),
    ),
    "t5": pair("T5", ("input_ids", "decoder_input_ids"), d_kv=4, d_ff=2 * W, num_layers=2, num_heads=H),
    "whisper": pair("Whisper", ("input_features", "decoder_input_ids"), **SPEECH, encoder_ffn_dim=2 * W,
                    decoder_ffn_dim=2 * W, num_mel_bins=8, max_source_positions=16, max_target_positions=32,
                    pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1),
    "vit (transformers)": Model(
        "transformers.ViTForImageClassification",
        {"config": {"_target_": "transformers.ViTConfig", **VISION}}, "logits",
    ),
    "resnet18 (timm)": of_timm("resnet18"),
    "vit_tiny (timm)": of_timm("vit_tiny_patch16_224", **TINY_VIT),
    "vit_tiny, drop path (timm)": of_timm("vit_tiny_patch16_224", **TINY_VIT, drop_path_rate=0.2),
    "convnext_atto (timm)": of_timm("convnext_atto"),
    "efficientnet_b0 (timm)": of_timm("efficientnet_b0"),
    "gmixer_12 (timm)": of_timm("gmixer_12_224", img_size=32),
    "resnet18 (torchvision)": Model("torchvision.models.resnet18", {"num_classes": CLASSES}),
    "resnet10t (timm)": of_timm("resnet10t"),
    "nn.Transformer, dropout": Model(
        "torch.nn.Transformer",
        {"d_model": W, "nhead": H, "num_encoder_layers": 2, "num_decoder_layers": 2, "dim_feedforward": 2 * W,
         "batch_first": True},
        None, "mse", pairs,
    ),
    "own: LSTMs, residuals": own("ResidualLSTM"),
    "own: two towers": own("TwoTowers", ("input_ids", "decoder_input_ids")),
    "own: autocast in forward": own("Autocast"),
    "own: batch norms": own("batch_norm_chain"),
    "own: checkpointed blocks, split.at=[2,3,4]": replace(own("checkpointed_chain"), at=("2", "3", "4")),
    "own: compiled blocks": own("compiled_chain"),
    "own: dropout": own("dropout_chain"),
    "own: F.dropout": own("FunctionalDropout"),
    "unet (pipezoo)": Model(
        "pipezoo.models.UNet", {}, None, "mse", partial(parts.worded, "data", "images", channels=3)
    ),
}  # fmt: skip


def verdict(name: str, schedule: str, stages: int, processes: bool = False) -> str:
    """``exact``, ``close``, or the line that a run ends with."""
    model = MODELS[name]
    root = "transformers" if model.target == "benchmarks.own_models.llama" else model.target.partition(".")[0]
    if root != "pipezoo" and importlib.util.find_spec(root) is None:
        return f"skipped: {root} is not installed"
    trust = Allowlist(tuple(library for library in LIBRARIES if importlib.util.find_spec(library)))
    role = "torch.nn.modules.module.Module"
    data = model.data() if isinstance(model.data, partial) and model.data.func is parts.worded else None
    experiment = Experiment(
        task="train",
        model=Component("model", name, model.target, model.arguments, role, trust=trust),
        data=data or PythonComponent("data", "mine", made=model.data),
        split=parts.worded("split", "replay", **({"at": [*model.at]} if model.at else {})),
        schedule=parts.worded("schedule", schedule),
        optimizer=parts.worded("optimizer", "adamw"),
        loss=parts.worded("loss", model.loss),
        executor=parts.worded("executor", "native"),
        cost=parts.worded("cost", "unit"),
        launch=Processes() if processes else Virtual(),
        launch_name="processes" if processes else "virtual",
        num_stages=None if schedule in WRITTEN else stages,
        num_microbatches=None if schedule in WRITTEN else 4,
        batch_size=4 * ROWS if schedule not in WRITTEN else None,
        steps=2,
        output=model.output,
    )
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "result.json", {})
        try:
            result = train.run(experiment, Path(folder), lambda line: None)
        except PipezooError as error:
            return f"{error.exit_code}: {error}"
    off = result.get("max_relative_difference") or 0.0
    return str(result["verified"]) + (f" {off:.0e}" if result["verified"] == "close" else "")


def in_every_order(name: str, stages: int) -> None:
    """The table of one model over the schedules of ``conf/schedule``."""
    print("| schedule | virtual ranks | processes |\n|---|---|---|", flush=True)
    for schedule in sorted(path.stem for path in (conf_dir() / "schedule").glob("*.yaml")):
        if schedule != "csv":
            real = verdict(name, schedule, stages, processes=True) if schedule in REAL else ""
            print(f"| {schedule} | {verdict(name, schedule, stages)} | {real} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="the first words of models; none: all of them")
    parser.add_argument("--schedule", default="1f1b")
    parser.add_argument("--stages", type=int, default=4)
    parser.add_argument("--orders", metavar="MODEL", choices=MODELS, help="this one in every order of the zoo")
    asked = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if asked.orders:
        in_every_order(asked.orders, asked.stages)
        return
    print("| model | `_target_` | verdict |\n|---|---|---|", flush=True)
    for name, model in MODELS.items():
        if not asked.names or any(name.startswith(word) for word in asked.names):
            print(f"| {name} | `{model.target}` | {verdict(name, asked.schedule, asked.stages)} |", flush=True)


if __name__ == "__main__":
    main()
