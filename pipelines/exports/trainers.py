"""What trainers want: the file beside the data, and which rows they would skip. Which shapes they read, `options` says.

Sources: the documentation of each, looked at in November 2026; of torchtune 0.6.1, ms-swift 4.6.0 and NeMo AutoModel
0.7.0 the code that reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from pipelines.exports.conversation import is_plain
from pipelines.exports.place import UrlFolder
from pipelines.exports.shapes import CannotHold, Record


@dataclass(frozen=True)
class Written:
    """What a trainer's file tells of an export.

    Attributes:
        name: what the data set is called.
        shape: of its records.
        folder: the export, an absolute path or a URL.
        files: of the data, relative to the folder.
        fields: of the records that were written.
    """

    name: str
    shape: str
    folder: Path | UrlFolder
    files: Sequence[str]
    fields: frozenset[str]

    @property
    def paths(self) -> list[str]:
        """The absolute paths of the files."""
        return [str(self.folder / file) for file in self.files]


@dataclass(frozen=True)
class Trainer:
    """A trainer.

    Attributes:
        name: as `--for` has it.
        title: as its users call it.
        beside: file name -> its content, for what was written.
        use: the line that a user types or writes.
        check: raises `CannotHold` for a record that it would skip.
    """

    name: str
    title: str
    beside: Callable[[Written], dict[str, str]]
    use: Callable[[Written], str]
    check: Callable[[str, Record], None] | None = None


# ---- LLaMA-Factory

_ROLES = {"from": {"human", "observation"}, "role": {"user", "tool"}}
_ANSWERS = {"from": {"gpt", "function_call"}, "role": {"assistant"}}
# Columns that dataset_info.json may name beside those of the shape.
_ATTACHED = ("tools", "images", "videos", "audios")


def check_llama_factory(shape: str, record: Record) -> None:
    """Raise `CannotHold` for what LLaMA-Factory skips or cannot read.

    Behind a first system message, user and observation stand at odd places, assistant and function call at even ones; a
    pair's prompt ends with the former, any other conversation with the latter.
    """
    if "tools" in record and not isinstance(record["tools"], str | None):
        raise CannotHold("LLaMA-Factory reads tools as JSON text, and these are objects")
    if shape not in ("messages", "sharegpt", "sharegpt-preference"):
        return
    messages = record["messages" if shape == "messages" else "conversations"]
    tag = "role" if shape == "messages" else "from"
    if shape == "messages" and not all(map(is_plain, messages)):
        raise CannotHold("LLaMA-Factory reads role and text of a message only")
    turns = messages[1:] if messages[0][tag] == "system" else messages
    for place, message in enumerate(turns):
        if message[tag] not in (_ANSWERS, _ROLES)[place % 2 == 0][tag]:
            raise CannotHold(f"{message[tag]} at place {place + 1}: LLaMA-Factory wants the two sides in turn")
    is_pair = shape == "sharegpt-preference"
    if not turns or len(turns) % 2 != is_pair:
        raise CannotHold("LLaMA-Factory wants the last message from the " + ("user" if is_pair else "assistant"))


_LLAMA_FACTORY: dict[str, dict[str, Any]] = {
    "alpaca": {
        "columns": {
            "prompt": "instruction",
            "query": "input",
            "response": "output",
            "system": "system",
            "history": "history",
        }
    },
    "text": {"columns": {"prompt": "text"}},
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations"}},
    "sharegpt-preference": {
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"},
    },
    "messages": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {
            "role_tag": "role",
            "content_tag": "content",
            "user_tag": "user",
            "assistant_tag": "assistant",
            "observation_tag": "tool",
            "function_tag": "function_call",
            "system_tag": "system",
        },
    },
}


def _dataset_info(written: Written) -> dict[str, str]:
    entry = _LLAMA_FACTORY[written.shape]
    columns = entry["columns"] | {name: name for name in _ATTACHED if name in written.fields}
    # A folder is read whole; it holds nothing but the shards.
    file = written.files[0] if len(written.files) == 1 else str(Path(written.files[0]).parent)
    info = {written.name: {"file_name": file, **entry, "columns": columns}}
    return {"dataset_info.json": json.dumps(info, indent=2, ensure_ascii=False) + "\n"}


# ---- the others


def _axolotl(written: Written) -> dict[str, str]:
    reading = {
        "messages": {"type": "chat_template", "field_messages": "messages"},
        "text": {"type": "completion", "field": "text"},
    }[written.shape]
    entries = [{"path": path, "ds_type": "json", **reading} for path in written.paths]
    return {"axolotl.yaml": yaml.safe_dump({"datasets": entries}, sort_keys=False, allow_unicode=True, width=1000)}


def _mixer(written: Written) -> str:
    return "--dataset_mixer_list " + " ".join(f"{path} 1.0" for path in written.paths)


def _load_dataset(written: Written) -> str:
    return f'datasets.load_dataset("{written.folder}", split="train")'


def check_torchtune(shape: str, record: Record) -> None:
    """Raise `CannotHold` for what torchtune refuses, or reads without its tool calls."""
    if shape != "messages":
        return
    roles = [message["role"] for message in record["messages"]]
    if not all(map(is_plain, record["messages"])):
        raise CannotHold("torchtune reads role and text of a message only")
    if set(roles) - {"system", "user", "assistant"}:
        raise CannotHold("torchtune knows the roles system, user and assistant")
    turns = roles[1:] if roles[0] == "system" else roles
    if len(roles) < 2 or turns[:1] != ["user"] or any(a == b for a, b in pairwise(turns)) or "system" in turns:
        raise CannotHold("torchtune wants user and assistant by turns, behind a first system message")


def check_swift(_: str, record: Record) -> None:
    """Raise `CannotHold` for what ms-swift reads without its pictures."""
    if not all(isinstance(message["content"], str) for message in record["messages"]):
        raise CannotHold("ms-swift wants text in a message, and pictures in a column `images`")


def check_automodel(_: str, record: Record) -> None:
    """Raise `CannotHold` for what NeMo AutoModel refuses, cuts or reads in part."""
    for message in record["messages"]:
        if message["role"] not in ("system", "user", "assistant", "tool"):
            raise CannotHold(f"NeMo AutoModel knows no role {message['role']!r}")
        if not isinstance(message["content"], str):
            raise CannotHold("NeMo AutoModel reads text of a message only")
        if message["role"] == "tool" and not message.get("tool_call_id"):
            raise CannotHold("NeMo AutoModel wants a tool_call_id with what a tool says")
    if len(json.dumps(record, ensure_ascii=False).splitlines()) > 1:
        raise CannotHold(
            "NeMo AutoModel takes a Unicode line separator (U+2028, U+2029, U+0085) for the end of the row"
        )


def _torchtune(written: Written) -> dict[str, str]:
    reading = {
        "messages": {
            "_component_": "torchtune.datasets.chat_dataset",
            "conversation_column": "messages",
            "conversation_style": "openai",
        },
        "text": {"_component_": "torchtune.datasets.text_completion_dataset", "column": "text"},
    }[written.shape]
    return _stanza("torchtune.yaml", {**reading, "source": "json", "data_files": written.paths, "split": "train"})


def _swift(written: Written) -> str:
    return "--dataset " + " ".join(written.paths)


def _automodel(written: Written) -> dict[str, str]:
    target = "nemo_automodel.components.datasets.llm.chat_dataset.ChatDataset"
    return _stanza("nemo_automodel.yaml", {"_target_": target, "path_or_dataset_id": written.paths})


def _stanza(file: str, dataset: Mapping[str, Any]) -> dict[str, str]:
    """A file with the entry `dataset:` of a trainer's YAML."""
    return {file: yaml.safe_dump({"dataset": dict(dataset)}, sort_keys=False, allow_unicode=True, width=1000)}


def _nothing(_: Written) -> dict[str, str]:
    return {}


TRAINERS: Mapping[str, Trainer] = {
    trainer.name: trainer
    for trainer in (
        Trainer("trl", "TRL", _nothing, _load_dataset),
        Trainer(
            "llama-factory",
            "LLaMA-Factory",
            _dataset_info,
            lambda written: f"dataset_dir: {written.folder}\ndataset: {written.name}",
            check_llama_factory,
        ),
        Trainer(
            "axolotl",
            "axolotl",
            _axolotl,
            lambda written: f"# the stanza `datasets:` of {written.folder / 'axolotl.yaml'}",
        ),
        Trainer(
            "open-instruct",
            "open-instruct",
            lambda written: {"open_instruct.args": _mixer(written) + "\n"},
            _mixer,
        ),
        Trainer(
            "torchtune",
            "torchtune",
            _torchtune,
            lambda written: f"# the stanza `dataset:` of {written.folder / 'torchtune.yaml'}",
            check_torchtune,
        ),
        Trainer(
            "ms-swift",
            "ms-swift",
            lambda written: {"ms_swift.args": _swift(written) + "\n"},
            _swift,
            check_swift,
        ),
        Trainer(
            "nemo-automodel",
            "NeMo AutoModel",
            _automodel,
            lambda written: f"# the stanza `dataset:` of {written.folder / 'nemo_automodel.yaml'}",
            check_automodel,
        ),
    )
}
