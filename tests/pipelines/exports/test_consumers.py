"""Every format, read by the program that it is for: `datasets`, and TRL's own tokenising; other trainers by their rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.context import Context
from pipelines.exports.export import export_selection
from pipelines.exports.options import ExportOptions
from pipelines.exports.shapes import CannotHold
from pipelines.exports.trainers import check_automodel, check_llama_factory, check_swift, check_torchtune
from tests.pipelines.exports.conftest import WHOLE

Load = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def load(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Load:
    """`load_dataset`, without network, as a list of rows."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    cache = tmp_path_factory.mktemp("datasets")
    datasets.disable_progress_bars()
    return lambda *args, **options: list(
        datasets.load_dataset(*map(str, args), split="train", cache_dir=str(cache), **options)
    )


def written(out: Path) -> list[dict[str, Any]]:
    texts = [file.read_text("utf-8") for file in sorted((out / "data").iterdir())]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def without_nulls(value: Any) -> Any:
    """Keys that `datasets` fills in with null, so that rows have the same. A text of JSON beside objects it opens."""
    if isinstance(value, dict):
        return {key: without_nulls(_opened(key, item)) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _opened(key: str, value: Any) -> Any:
    return json.loads(value) if key == "tools" and isinstance(value, str) else value


@pytest.mark.parametrize(
    ("recipe", "to", "share"),
    [
        ("chats", "messages", 0),
        ("tools", "messages", 0),
        ("chats", "prompt-completion", 0.25),
        ("tools", "prompt-completion", 0),
        ("pairs", "preference", 0.34),
        ("pairs", "preference-text", 0.67),
        ("chats", "alpaca", 0.25),
        ("tools", "sharegpt", 0.67),
        ("pairs", "sharegpt-preference", 0.34),
        ("texts", "text", 0),
        ("every", "ids", 0),
    ],
)
def test_datasets__loads_the_folder_as_it_was_written(
    context: Context, tmp_path: Path, load: Load, recipe: str, to: str, share: float
) -> None:
    out = tmp_path / "out"
    export_selection(
        context, recipe, ExportOptions(to=to, shards=3 if to == "messages" else 1, allow_left_out=share), out
    )
    rows = load(out)
    assert [without_nulls(row) for row in rows] == [without_nulls(row) for row in written(out)]
    assert len(rows) > 0


def test_datasets__loads_parquet_without_a_key_more_or_less(context: Context, tmp_path: Path, load: Load) -> None:
    export_selection(context, "every", ExportOptions(to="parquet", shards=2), tmp_path / "parquet")
    rows = {row["given_id"]: row for row in load(tmp_path / "parquet")}
    assert rows.keys() == WHOLE.keys()
    assert rows["calls"]["messages"] == WHOLE["calls"]["messages"]
    assert [rows[name]["tools"] for name in ("calls", "sharegpt")] == [
        WHOLE["calls"]["tools"],
        WHOLE["sharegpt"]["tools"],
    ]
    export_selection(context, "tools", ExportOptions(to="hf", columns=("given_id",)), tmp_path / "hf")
    (calls,) = [row for row in load(tmp_path / "hf") if row["given_id"] == "calls"]
    assert calls["messages"] == WHOLE["calls"]["messages"]


# ---- LLaMA-Factory


@pytest.mark.parametrize(
    ("recipe", "to", "share", "shards"),
    [
        ("chats", "alpaca", 0.25, 1),
        ("chats", "messages", 0.25, 2),
        ("tools", "sharegpt", 0.67, 1),
        ("texts", "text", 0, 3),
    ],
)
def test_llama_factory__finds_its_data(
    context: Context, tmp_path: Path, load: Load, recipe: str, to: str, share: float, shards: int
) -> None:
    options = ExportOptions(to=to, trainer="llama-factory", shards=shards, allow_left_out=share)
    export_selection(context, recipe, options, tmp_path / "out")
    entry = json.loads((tmp_path / "out/dataset_info.json").read_text())[recipe]
    file = tmp_path / "out" / entry["file_name"]
    # As its loader does: every file of a folder.
    files = [str(path) for path in sorted(file.iterdir())] if file.is_dir() else [str(file)]
    rows = load("json", data_files=files)
    assert len(files) == shards
    assert all(column in rows[0] for column in entry["columns"].values())
    if to == "sharegpt":
        assert entry["columns"]["tools"] == "tools"


@pytest.mark.parametrize(
    ("roles", "allowed"),
    [
        ("user assistant", True),
        ("system user assistant user assistant", True),
        ("user assistant tool assistant", True),
        ("user assistant user", False),
        ("user user assistant assistant", False),
        ("assistant user", False),
        ("user tool assistant assistant", False),
        ("system", False),
    ],
)
def test_llama_factory__wants_the_two_sides_in_turn(roles: str, allowed: bool) -> None:
    record = {"messages": [{"role": role, "content": "x"} for role in roles.split()]}
    # Its own rule, written as its converter has it.
    turns = [role for role in roles.split() if role != "system"]
    odd, even = {"user", "tool"}, {"assistant"}
    rule = all(role in (odd, even)[i % 2] for i, role in enumerate(turns)) and len(turns) % 2 == 0 and bool(turns)
    assert rule == allowed
    if allowed:
        check_llama_factory("messages", record)
    else:
        with pytest.raises(CannotHold, match="LLaMA-Factory wants"):
            check_llama_factory("messages", record)


def test_llama_factory__of_a_pair_the_prompt_ends_with_the_user() -> None:
    pair = {"conversations": [{"from": "human", "value": "x"}], "chosen": {}, "rejected": {}}
    check_llama_factory("sharegpt-preference", pair)
    with pytest.raises(CannotHold, match="last message from the user"):
        check_llama_factory(
            "sharegpt-preference", pair | {"conversations": [*pair["conversations"], {"from": "gpt", "value": "y"}]}
        )


def test_llama_factory__reads_tools_as_text(context: Context, tmp_path: Path) -> None:
    options = ExportOptions(to="messages", trainer="llama-factory", allow_left_out=1)
    report = export_selection(context, "tools", options, tmp_path / "out")
    assert sorted(report.left_out) == [
        "LLaMA-Factory reads role and text of a message only",
        "LLaMA-Factory reads tools as JSON text, and these are objects",
    ]


# ---- axolotl and open-instruct


def test_axolotl__has_a_stanza_for_each_file(context: Context, tmp_path: Path, load: Load) -> None:
    out = tmp_path / "out"
    export_selection(context, "chats", ExportOptions(to="messages", trainer="axolotl", shards=2), out)
    stanza = yaml.safe_load((out / "axolotl.yaml").read_text())
    assert [{**entry, "path": ""} for entry in stanza["datasets"]] == [
        {"path": "", "ds_type": "json", "type": "chat_template", "field_messages": "messages"}
    ] * 2
    rows = [row for entry in stanza["datasets"] for row in load(entry["ds_type"], data_files=entry["path"])]
    assert [without_nulls(row) for row in rows] == written(out)


def test_open_instruct__has_a_mixer_line(context: Context, tmp_path: Path) -> None:
    export_selection(context, "chats", ExportOptions(to="messages", trainer="open-instruct"), tmp_path / "out")
    line = (tmp_path / "out/open_instruct.args").read_text().split()
    assert line == ["--dataset_mixer_list", str(tmp_path / "out/data/train.jsonl"), "1.0"]
    assert Path(line[1]).is_file()


# ---- torchtune, ms-swift, NeMo AutoModel; `benchmarks/trainers.py` runs what they read with


def test_torchtune__has_a_stanza_that_its_builder_takes(context: Context, tmp_path: Path, load: Load) -> None:
    out = tmp_path / "out"
    options = ExportOptions(to="messages", trainer="torchtune", shards=2, allow_left_out=0.25)
    export_selection(context, "chats", options, out)
    entry = yaml.safe_load((out / "torchtune.yaml").read_text())["dataset"]
    assert entry.pop("_component_") == "torchtune.datasets.chat_dataset"
    assert (entry.pop("conversation_column"), entry.pop("conversation_style")) == ("messages", "openai")
    assert entry.pop("split") == "train"
    rows = load(entry.pop("source"), **entry)  # the rest goes to `load_dataset`
    assert [without_nulls(row) for row in rows] == written(out)
    export_selection(context, "texts", ExportOptions(to="text", trainer="torchtune"), tmp_path / "texts")
    entry = yaml.safe_load((tmp_path / "texts" / "torchtune.yaml").read_text())["dataset"]
    assert (entry["_component_"], entry["column"]) == ("torchtune.datasets.text_completion_dataset", "text")


@pytest.mark.parametrize(
    ("roles", "cause"),
    [
        ("user assistant", None),
        ("system user assistant user", None),
        ("assistant user", "by turns"),
        ("user user", "by turns"),
        ("user system assistant", "by turns"),
        ("user", "by turns"),
        ("user tool", "the roles system, user and assistant"),
    ],
)
def test_torchtune__refuses_what_it_would_refuse(roles: str, cause: str | None) -> None:
    record = {"messages": [{"role": role, "content": "x"} for role in roles.split()]}
    if cause is None:
        check_torchtune("messages", record)
    else:
        with pytest.raises(CannotHold, match=cause):
            check_torchtune("messages", record)


def test_torchtune__does_not_read_tool_calls(context: Context, tmp_path: Path) -> None:
    options = ExportOptions(to="messages", trainer="torchtune", allow_left_out=1)
    report = export_selection(context, "tools", options, tmp_path / "out")
    assert set(report.left_out) == {
        "torchtune reads role and text of a message only",
    }


def test_ms_swift__has_a_line_of_paths(context: Context, tmp_path: Path, load: Load) -> None:
    out = tmp_path / "out"
    export_selection(context, "chats", ExportOptions(to="messages", trainer="ms-swift", shards=2), out)
    option, *files = (out / "ms_swift.args").read_text().split()
    assert option == "--dataset"
    rows = [row for file in files for row in load("json", data_files=file)]
    assert [without_nulls(row) for row in rows] == written(out)
    check_swift("messages", WHOLE["calls"])
    with pytest.raises(CannotHold, match="pictures in a column"):
        check_swift("messages", WHOLE["parts"])


def test_automodel__reads_its_files_line_by_line(context: Context, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_selection(context, "chats", ExportOptions(to="messages", trainer="nemo-automodel", shards=2), out)
    entry = yaml.safe_load((out / "nemo_automodel.yaml").read_text())["dataset"]
    assert entry["_target_"].endswith("chat_dataset.ChatDataset")
    # As its reader does: by what Python takes for lines.
    lines = [line for file in entry["path_or_dataset_id"] for line in Path(file).read_text("utf-8").splitlines()]
    assert [json.loads(line) for line in lines] == written(out)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ({"role": "user", "content": "one\u2028two"}, "line separator"),
        ({"role": "critic", "content": "x"}, "no role 'critic'"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "user", "content": [{"type": "image"}]}, "text of a message only"),
    ],
)
def test_automodel__what_it_cannot_read(message: dict[str, Any], cause: str) -> None:
    check_automodel("messages", WHOLE["calls"])
    with pytest.raises(CannotHold, match=cause):
        check_automodel("messages", {"messages": [message]})


# ---- TRL


def tiny_chat_tokenizer() -> Any:
    """Words of the fixtures, with a chat template that writes roles, tools and calls."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    text = json.dumps(WHOLE) + " : assistant user system tool <eos>"
    words = sorted({word for word, _ in pre_tokenizers.Whitespace().pre_tokenize_str(text)})
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<eos>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>", unk_token="<unk>")
    fast.chat_template = (
        "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"
        "{% for m in messages %}{{ m.role }} : {{ m.content }} {% for c in m.tool_calls or [] %}"
        "{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant : {% endif %}"
    )
    return fast


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, by what TRL sets
@pytest.mark.parametrize(
    ("recipe", "to"), [("chats", "messages"), ("tools", "hf"), ("chats", "prompt-completion"), ("texts", "text")]
)
def test_trl__tokenises_for_supervised_training(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, to: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("trl")
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    out = tmp_path / "out"
    export_selection(context, recipe, ExportOptions(to=to, trainer="trl", allow_left_out=0.25), out)
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    if recipe == "tools":
        # What it takes for pictures wants a model that sees.
        rows = rows.filter(lambda row: row["images"] is None).remove_columns("images")
    tokenizer = tiny_chat_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    settings = SFTConfig(output_dir=str(tmp_path / "trl"), report_to=[], use_cpu=True, max_length=512, bf16=False)
    trainer = SFTTrainer(LlamaForCausalLM(config), settings, train_dataset=rows, processing_class=tokenizer)
    tokens = [tokenizer.decode(row["input_ids"]) for row in trainer.train_dataset]
    assert len(tokens) == len(rows) > 0
    if recipe == "chats":  # every turn, the system prompt too
        (five,) = [text for text in tokens if "brief" in text]
        assert five.split(" assistant")[0].startswith("system : Be brief")
        assert five.count("assistant :") == 3
    if recipe == "tools":
        (calls,) = [text for text in tokens if "parameters" in text]
        assert calls.replace(" ", "").index("parameters") < calls.replace(" ", "").index('"c":')


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, by what TRL sets
def test_trl__tokenises_preferences(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    trl = pytest.importorskip("trl")
    import datasets

    export_selection(
        context, "pairs", ExportOptions(to="preference", trainer="trl", allow_left_out=0.34), tmp_path / "out"
    )
    rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    tokenizer = tiny_chat_tokenizer()
    for row in rows:
        texts = trl.apply_chat_template(row, tokenizer)
        assert texts["prompt"].endswith("assistant : ")
        assert (texts["chosen"] != texts["rejected"], bool(texts["chosen"])) == (True, True)
