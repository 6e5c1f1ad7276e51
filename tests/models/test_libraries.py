"""Models of other libraries, as they come from their class or factory, trained on virtual ranks. Random weights."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from pipezoo.data.batch import Batch, generator
from pipezoo.data.image_classes import batches as images
from pipezoo.data.text import batches as text
from pipezoo.errors import ConfigError
from pipezoo.experiment.allowlist import Allowlist
from pipezoo.experiment.component import Component
from pipezoo.experiment.python_component import PythonComponent
from pipezoo.foreign_import import declare_operators
from pipezoo.models.hf_causal_lm import hf_causal_lm
from pipezoo.models.timm_model import timm_model
from pipezoo.runtime.weights import load_weights
from tests.conftest import REPOSITORY
from tests.support.experiments import ending, experiment

declare_operators()  # of a torchvision that another torch was built for
ROWS, LENGTH, VOCABULARY = 2, 8, 32


def needs(library: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(library) is None
    return pytest.mark.skipif(missing, reason=f"{library} is not installed: pip install '.[hf,timm,peft]'")


def tokens(batch_size: int, seed: int, *names: str):
    def batch(step):
        ids = torch.randint(VOCABULARY, (batch_size, LENGTH), generator=generator(seed, step))
        mask = (torch.arange(LENGTH) < LENGTH - 2).long().expand(batch_size, -1)
        given = {"input_ids": ids, "decoder_input_ids": ids.roll(1, 1), "attention_mask": mask}
        return Batch((), {name: given[name] for name in names}, ids[:, 0] % 4 if "attention_mask" in names else ids)

    return batch


def trains(folder: Path, make, data, output, loss, schedule="pipezoo.schedules.zbv.zbv", stages=4):
    asked = experiment(
        t5, split="pipezoo.splitters.replay.split", loss=loss, schedule=schedule, num_stages=stages, output=output,
        num_microbatches=4, batch_size=4 * ROWS, steps=2,
    )  # fmt: skip
    model = make if isinstance(make, Component) else PythonComponent("model", "mine", made=make)
    parts = {"model": model, "data": PythonComponent("data", "mine", made=data)}
    return ending(replace(asked, **parts), folder)


def t5():
    import transformers

    config = transformers.T5Config(
        vocab_size=VOCABULARY, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return transformers.T5ForConditionalGeneration(config)


def bert():
    import transformers

    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=4, num_attention_heads=4, intermediate_size=32,
        max_position_embeddings=LENGTH, num_labels=4,
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


SMALL = {"vocab_size": VOCABULARY, "width": 16, "depth": 4, "heads": 4, "context": LENGTH}
CE, LM = "torch.nn.CrossEntropyLoss", "pipezoo.losses.TokenCrossEntropy"


@needs("transformers")
@pytest.mark.parametrize(
    ("family", "verdict", "more"),
    [("llama", "exact", {}), ("gpt2", "exact", {}), ("gpt2", "close", {"tied": True}), ("qwen3", "exact", {})],
)
def test_a_causal_language_model_of_any_family_is_verified(tmp_path, family, verdict, more):
    make = partial(hf_causal_lm, family, **SMALL, **more)
    assert trains(tmp_path, make, next_tokens, "logits", LM) == (0, verdict)


def llama():
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=32, max_position_embeddings=LENGTH,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def part(target, **arguments):
    trust = Allowlist(("transformers", "peft"))
    return Component("model", "mine", target, arguments, "torch.nn.modules.module.Module", trust=trust)


FROM_PRETRAINED = "transformers.AutoModelForCausalLM.from_pretrained"


@needs("transformers")
def test_weights_of_a_folder_are_trained_whoever_reads_them(tmp_path):
    saved = llama()
    saved.save_pretrained(tmp_path / "llama")
    nodes = {
        "theirs": part(FROM_PRETRAINED, pretrained_model_name_or_path=str(tmp_path / "llama")),
        "ours": PythonComponent("model", "mine", made=lambda: load_weights(llama(), str(tmp_path / "llama"))),
    }
    for name, made in nodes.items():
        ours, theirs = made().state_dict(), saved.state_dict()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
        assert trains(tmp_path / name, made, next_tokens, "logits", LM) == (0, "exact")


@needs("peft")
def test_an_adapter_of_a_folder_learns_and_its_base_does_not(tmp_path):
    import peft

    base, folder = llama(), str(tmp_path / "adapter")
    base.save_pretrained(tmp_path / "llama")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="gaussian")
    peft.get_peft_model(base, lora).save_pretrained(folder)
    node = {"_target_": FROM_PRETRAINED, "pretrained_model_name_or_path": str(tmp_path / "llama")}
    made = part("peft.PeftModel.from_pretrained", model=node, model_id=folder, is_trainable=True)
    learning = {name.split(".")[-3] for name, p in made().named_parameters() if p.requires_grad}
    assert learning == {"lora_A", "lora_B"}
    assert trains(tmp_path / "run", made, next_tokens, "logits", LM) == (0, "exact")


@needs("transformers")
def test_a_folder_of_another_model_is_refused_by_what_does_not_fit(tmp_path):
    saved = llama()
    del saved.model.layers[3]
    saved.save_pretrained(tmp_path / "llama")
    with pytest.raises(ConfigError, match=r"is of another model: it lacks model\.layers\.3\.self_attn.* and 6 more$"):
        load_weights(llama(), str(tmp_path / "llama"))
    with pytest.raises(ConfigError, match=r"^model\.pretrained_model_name_or_path=\./gone: no such file or folder$"):
        part(FROM_PRETRAINED, pretrained_model_name_or_path="./gone")()


@needs("transformers")
def test_checkpointed_layers_are_exact(tmp_path):
    from benchmarks.own_models import llama as changed

    made = partial(changed, llama().config, checkpoints=True)
    assert trains(tmp_path, made, next_tokens, "logits", LM) == (0, "exact")


def next_tokens(batch_size, seed):
    inner = tokens(batch_size, seed, "input_ids")
    return lambda step: inner(step)._replace(args=(inner(step).kwargs["input_ids"],), kwargs={})


@needs("transformers")
@pytest.mark.parametrize(
    ("make", "names", "verdict"),
    [(t5, ("input_ids", "decoder_input_ids"), "close"), (bert, ("input_ids", "attention_mask"), "exact")],
)
def test_an_encoder_with_and_without_decoder_takes_its_inputs_by_name(tmp_path, make, names, verdict):
    def data(batch_size, seed):
        return tokens(batch_size, seed, *names)

    assert trains(tmp_path, make, data, "logits", CE if make is bert else LM) == (0, verdict)


@needs("timm")
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet10t", {}),
        ("vit_tiny_patch16_224", {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 4}),
    ],
)
def test_a_model_of_timm_is_exact(tmp_path, name, arguments):
    make = partial(timm_model, name, 4, arguments)
    assert trains(tmp_path, make, partial(images, size=16, num_classes=4), None, CE) == (0, "exact")


@needs("transformers")
def test_an_unknown_family_is_answered_with_those_like_it():
    with pytest.raises(ValueError, match=r"^family=lama: transformers has no .*; valid: llama, "):
        hf_causal_lm("lama")


@needs("timm")
def test_an_unknown_name_is_answered_with_those_like_it():
    with pytest.raises(ValueError, match=r"^name=resnet19: timm has no model of this name; valid: resnet18"):
        timm_model("resnet19")


@pytest.mark.parametrize(("make", "library"), [(hf_causal_lm, "transformers"), (timm_model, "timm")])
def test_a_library_that_is_not_installed_is_named_in_a_line(make, library, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"needs {library}, which is not installed; valid: pip install 'pipezoo\["):
        make()


def test_text_is_what_the_language_model_reads_by_default():
    assert text(2, 0, LENGTH)(0).args[0].shape == (2, LENGTH)


def test_the_document_lists_the_models_that_the_benchmark_runs():
    from benchmarks.byo import MODELS

    listed = (REPOSITORY / "docs" / "bring-your-own.md").read_text()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in listed.splitlines() if line.startswith("| ")]
    assert [row for row in rows if row in MODELS] == [*MODELS]
