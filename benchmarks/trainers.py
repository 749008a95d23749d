"""Whether trainers' own loaders read what `winnow export` writes.

    pip install --no-deps llamafactory==0.9.5 axolotl==0.19.0 peft addict pillow
    pip install --no-deps torchtune==0.6.1 ms-swift==4.6.0 nemo-automodel==0.7.0 modelscope modelscope-hub
    python benchmarks/trainers.py                                        # all, or:
    python benchmarks/trainers.py torchtune ms-swift nemo-automodel

They pin other versions of what winnow uses and want CUDA packages, so they are installed without dependencies, and
what they import beside datasets, transformers and peft (audio, images, kernels, trackers) is a stand-in here. The code
that reads and tokenizes conversations is theirs. Every example is compared with the row that was exported; exits with 1
where one differs.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
STAND_INS = {
    "aiohttp", "av", "bitsandbytes", "blobfile", "colorama", "cryptography", "deepspeed", "fire", "flash_attn",
    "gradio", "immutabledict", "json_repair", "langdetect", "librosa", "lm_eval", "mistral_common", "mlflow",
    "modal", "nltk", "omegaconf", "optimum", "posthog", "ray", "s3fs", "schedulefree", "sentencepiece", "tiktoken",
    "torchao", "torchaudio", "torchdata", "torchvision", "trackio", "tyro", "vllm", "wandb", "xformers",
}  # fmt: skip
CONFIG = """\
store: ./store
pool: {files: data/*.jsonl}
recipes:
  chats: {steps: [random], budget: 10, where: "source = 'chat'"}
  pairs: {steps: [random], budget: 6, where: "source = 'pair'"}
  single: {steps: [random], budget: 6, where: "source = 'single'"}
"""


BUDGETS = {"chats": 10, "pairs": 6, "single": 6}
SHAPES = [
    ("chats", "messages"),
    ("chats", "sharegpt"),
    ("chats", "alpaca"),
    ("pairs", "sharegpt-preference"),
    ("single", "alpaca"),
    ("single", "messages"),
]


class StandIns:
    """Finds modules that are not installed and not needed to read conversations."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in STAND_INS:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return MagicMock(__spec__=spec, __path__=[], __version__="99")

    def exec_module(self, module: ModuleType) -> None:
        pass


def write_project(folder: Path) -> None:
    def chat(number: int) -> dict[str, Any]:
        turns = [("system", "Be brief."), ("user", f"Question {number}?"), ("assistant", f"Answer {number}.")]
        turns += [("user", f"And {number + 1}?"), ("assistant", f"That is {number + 1}.")]
        messages = [{"role": role, "content": content} for role, content in turns]
        return {"id": f"chat-{number}", "source": "chat", "messages": messages}

    def pair(number: int) -> dict[str, Any]:
        texts = {"prompt": f"Which {number}?", "chosen": f"Good {number}.", "rejected": f"Bad {number}."}
        return {"id": f"pair-{number}", "source": "pair", **texts}

    def single(number: int) -> dict[str, Any]:
        return {
            "id": f"single-{number}",
            "source": "single",
            "prompt": f"Say {number}?",
            "response": f"It is {number}.",
        }

    (folder / "data").mkdir()
    (folder / "winnow.yaml").write_text(CONFIG)
    for name, row in (("chats", chat), ("pairs", pair), ("single", single)):
        lines = "".join(json.dumps(row(number)) + "\n" for number in range(12))
        (folder / "data" / f"{name}.jsonl").write_text(lines)


def export(project: Path, recipe: str, shape: str, trainer: str) -> Path:
    from pipelines.context import open_context
    from pipelines.exports.export import export_selection
    from pipelines.exports.options import ExportOptions
    from pipelines.progress import Log

    out = project / f"{trainer}-{shape}-{recipe}"
    export_selection(open_context(project, Log(lambda _: None)), recipe, ExportOptions(to=shape, trainer=trainer), out)
    return out


def said(example: dict[str, Any]) -> list[tuple[str, str]]:
    """Role and text of an example of LLaMA-Factory, its system prompt first."""
    system = [("system", example["_system"])] if example["_system"] else []
    return [*system, *((turn["role"], turn["content"]) for turn in [*example["_prompt"], *example["_response"]])]


def by_llama_factory(folder: Path, name: str) -> list[list[tuple[str, str]]]:
    from llamafactory.data.loader import _load_single_dataset  # type: ignore[import-not-found,unused-ignore]
    from llamafactory.data.parser import get_dataset_list  # type: ignore[import-not-found,unused-ignore]
    from llamafactory.hparams import DataArguments  # type: ignore[import-not-found,unused-ignore]

    arguments = DataArguments(dataset=name, dataset_dir=str(folder))
    (attributes,) = get_dataset_list(arguments.dataset, arguments.dataset_dir)
    tokens = dict.fromkeys(("cache_dir", "hf_hub_token", "ms_hub_token", "om_hub_token"))
    training = SimpleNamespace(do_train=True, local_process_index=0, seed=0, should_log=False)
    loaded = _load_single_dataset(attributes, SimpleNamespace(**tokens, trust_remote_code=False), arguments, training)
    return [said(example) for example in loaded]


def by_axolotl(folder: Path, model: Path) -> list[tuple[str, str]]:
    """What axolotl makes of each row of `messages`: the whole text, and the part that is trained on."""
    from axolotl.prompt_strategies.chat_template import load  # type: ignore[import-not-found,unused-ignore]
    from axolotl.utils.data.shared import load_dataset_with_config  # type: ignore[import-not-found,unused-ignore]
    from axolotl.utils.dict import DictDefault  # type: ignore[import-not-found,unused-ignore]
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] + eos_token }}{% endfor %}"
    )
    (entry,) = yaml.safe_load((folder / "axolotl.yaml").read_text())["datasets"]
    options = entry | {"chat_template": "tokenizer_default", "roles_to_train": ["assistant"], "train_on_eos": "none"}
    strategy = load(tokenizer, DictDefault({"sequence_len": 512, "train_on_inputs": False}), ds_cfg=options)
    texts = []
    for row in load_dataset_with_config(DictDefault(entry), False):
        tokens = strategy.tokenize_prompt(row)
        trained = [token for token, label in zip(tokens["input_ids"], tokens["labels"], strict=True) if label != -100]
        texts.append((_letters(tokenizer.decode(tokens["input_ids"])), _letters(tokenizer.decode(trained))))
    return texts


class Messages:
    """In place of torchtune's tokenizer: keeps its messages; a token each, masked where torchtune masks."""

    def __init__(self) -> None:
        self.read: list[list[tuple[str, str]]] = []

    def __call__(self, sample: dict[str, Any], **_: Any) -> dict[str, Any]:
        messages = sample["messages"]
        assert [message.role for message in messages if not message.masked] == ["assistant"] * (len(messages) // 2)
        self.read.append([(message.role, message.text_content) for message in messages])
        return {"tokens": list(range(len(messages))), "mask": [message.masked for message in messages]}


def by_torchtune(folder: Path) -> list[list[tuple[str, str]]]:
    """What torchtune would tokenize, once it has checked it; it trains on the answers alone."""
    entry = yaml.safe_load((folder / "torchtune.yaml").read_text())["dataset"]
    module, _, builder = entry.pop("_component_").rpartition(".")
    tokenizer = Messages()
    dataset = getattr(importlib.import_module(module), builder)(tokenizer=tokenizer, **entry)
    assert len([dataset[place] for place in range(len(dataset))]) == len(tokenizer.read)
    return tokenizer.read


def by_swift(folder: Path) -> list[list[tuple[str, str]]]:
    from datasets import load_dataset
    from swift.dataset.preprocessor.core import AutoPreprocessor  # type: ignore[import-not-found,unused-ignore]

    _, *files = (folder / "ms_swift.args").read_text().split()
    rows = [row for file in files for row in AutoPreprocessor()(load_dataset("json", data_files=file, split="train"))]
    return [[(turn["role"], turn["content"]) for turn in row["messages"]] for row in rows]


def by_automodel(folder: Path) -> list[list[tuple[str, str]]]:
    from nemo_automodel.components.datasets.llm import (  # type: ignore[import-not-found,unused-ignore]
        chat_dataset,
    )

    entry = yaml.safe_load((folder / "nemo_automodel.yaml").read_text())["dataset"]
    # `ChatDataset` itself wants a tokenizer.
    rows = chat_dataset._load_openai_messages(entry["path_or_dataset_id"])  # noqa: SLF001
    whole = [chat_dataset._normalize_messages(row["messages"]) for row in rows]  # noqa: SLF001
    return [[(turn["role"], turn["content"]) for turn in messages] for messages in whole]


def _letters(text: str) -> str:
    """Without spaces, of which tokenizers make some."""
    return text.replace(" ", "")


def conversation(row: dict[str, Any]) -> list[tuple[str, str]]:
    if "messages" in row:
        return [(turn["role"], turn["content"]) for turn in row["messages"]]
    answers = [row["response"]] if "response" in row else [row["chosen"], row["rejected"]]
    return [("user", row["prompt"]), *(("assistant", answer) for answer in answers)]


def templated(turns: list[tuple[str, str]]) -> tuple[str, str]:
    """A conversation as the template of `by_axolotl` writes it, and its answers."""
    whole = "".join(f"[{role}]{text}</s>" for role, text in turns)
    return _letters(whole), _letters("".join(text for role, text in turns if role == "assistant"))


def differs(title: str, read: list[Any], budget: int, pool: list[Any]) -> bool:
    """Whether a trainer read anything but `budget` different rows of the pool, each of them whole."""
    strange = [each for each in read if each not in pool]
    count = len({repr(each) for each in read})
    right = not strange and count == len(read) == budget
    print(
        f"{title}: {len(read)} rows, {'all as in the pool' if right else f'NOT as in the pool: {strange[:1] or count}'}"
    )
    return not right


OTHERS = (
    ("torchtune", by_torchtune, ("messages",)),
    ("ms-swift", by_swift, ("messages",)),
    ("nemo-automodel", by_automodel, ("messages",)),
)


def main() -> int:
    sys.meta_path.append(StandIns())  # type: ignore[arg-type]
    os.environ |= {"DISABLE_VERSION_CHECK": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    from pipelines.context import open_context
    from pipelines.progress import Log
    from pipelines.run import run_all
    from tests.tiny_models import tiny_llama

    trainers = sys.argv[1:] or ["llama-factory", "axolotl", *(name for name, *_ in OTHERS)]
    wrong = False
    with TemporaryDirectory() as temporary:
        project = Path(temporary)
        write_project(project)
        run_all(open_context(project, Log(lambda _: None)))
        lines = [line for path in (project / "data").glob("*.jsonl") for line in path.read_text().splitlines()]
        pool = [conversation(json.loads(line)) for line in lines]
        for recipe, shape in SHAPES if "llama-factory" in trainers else ():
            read = by_llama_factory(export(project, recipe, shape, "llama-factory"), recipe)
            wrong |= differs(f"LLaMA-Factory, {recipe} as {shape}", read, BUDGETS[recipe], pool)
        model = tiny_llama(project / "model")
        for recipe in ("chats", "single") if "axolotl" in trainers else ():
            texts = by_axolotl(export(project, recipe, "messages", "axolotl"), model)
            wrong |= differs(
                f"axolotl, {recipe} as messages", texts, BUDGETS[recipe], [templated(each) for each in pool]
            )
        for trainer, reader, shapes in OTHERS:
            for shape in shapes if trainer in trainers else ():
                for recipe in ("chats", "single"):
                    read = reader(export(project, recipe, shape, trainer))
                    wrong |= differs(f"{trainer}, {recipe} as {shape}", read, BUDGETS[recipe], pool)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
