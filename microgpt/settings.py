"""What decides the numbers of a run: each setting with its default, its range, and the flag that gives it, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from microgpt.model import GPTConfig
from microgpt.ranges import OneOf, Range, Real, Switch, Whole, Words
from microgpt.sampler import TEMPERATURE
from microgpt.schedule import SCHEDULES
from microgpt.text import BLANK_LINE

MAX_VALIDATED = 200  # documents or windows a validation looks at: it then costs about as much as 50 steps of training
SEED = Whole(0, 2**64 - 1)
FORMATS = ("lines", "text")
TOKENIZERS = ("characters", "bytes")
READING = ("format", "delimiter", "long", "keep_spaces")  # settings that say how a text is read
GROUPS = ("text", "model", "training", "validation", "samples")  # of the flags, in the order of --help


def setting(
    default: Any,
    allowed: Range,
    group: str,
    meaning: str,
    metavar: str | None = "N",
    *,
    on_resume: str = "same",
    later: bool = False,
) -> Any:
    """Return a field of Settings whose values are those in `allowed`, and None if that is the default.

    `group`, `meaning`, `metavar`: of its flag. `on_resume`: whether a saved run goes on with the "same" value only, with "any",
    with "more" or with "less". `later`: files of version 0.1.0 do not have it, and mean the default.
    """
    about = {"allowed": allowed, "group": group, "meaning": meaning, "metavar": metavar, "on_resume": on_resume, "later": later}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Settings:
    """What decides the numbers of a run, beside its text and, where given, its tokenizer and the model it starts from.

    Errors: ValueError for a value that is not allowed, from whatever file, flag or call it comes.
    """

    format: str = setting(
        "lines", OneOf(FORMATS), "text", "a document per line, or one stream of which every character is learnt", None, later=True
    )
    delimiter: str | None = setting(
        None,
        Words(),
        "text",
        f"documents of several lines, which TEXT stands between; {BLANK_LINE}: an empty line or more",
        "TEXT",
        later=True,
    )
    long: str = setting(
        "cut",
        OneOf(("cut", "windows")),
        "text",
        "of a document longer than the block, take the beginning, or all in windows, one after the other",
        None,
        later=True,
    )
    keep_spaces: bool = setting(False, Switch(), "text", "keep white space at the ends of documents", later=True)
    tokenizer: str = setting(
        "characters",
        Words(),
        "text",
        "characters, bytes, or a FILE.json that python -m microgpt.tokenize made",
        "KIND",
        later=True,
    )

    n_layer: int = setting(GPTConfig.n_layer, Whole(1), "model", "transformer blocks")
    n_embd: int = setting(GPTConfig.n_embd, Whole(1), "model", "width of the model")
    n_head: int = setting(GPTConfig.n_head, Whole(1), "model", "attention heads, a divisor of n-embd")
    block_size: int = setting(GPTConfig.block_size, Whole(1), "model", "longest context in tokens")
    tie_weights: bool = setting(False, Switch(), "model", "one matrix for tokens in and out: wte is lm_head, too", later=True)

    steps: int = setting(1000, Whole(1), "training", "training steps, one batch each", on_resume="more")
    batch_size: int = setting(1, Whole(1), "training", "documents or windows in a batch; its loss is the mean of theirs")
    learning_rate: float = setting(
        0.01, Real(0, exclusive=True), "training", "the highest; the schedule lowers it", "RATE", on_resume="less"
    )
    schedule: str = setting("linear", OneOf(SCHEDULES), "training", "how the learning rate falls to 0, if it does", None)
    warmup: int = setting(0, Whole(0), "training", "steps in which the learning rate rises first")
    weight_decay: float = setting(
        0.0, Real(0), "training", "a step first takes away this share of each weight, times the rate", "SHARE"
    )
    clip_grad: float | None = setting(
        None, Real(0, exclusive=True), "training", "scale gradients down to the norm NORM where theirs is larger", "NORM"
    )
    dropout: float = setting(
        0.0,
        Real(0, below=1),
        "training",
        "share of the numbers in the residual stream that a step leaves out",
        "SHARE",
        later=True,
    )
    label_smoothing: float = setting(
        0.0, Real(0, below=1), "training", "share of each target that is spread over all tokens", "SHARE", later=True
    )
    seed: int = setting(42, SEED, "training", "seed of shuffle, weights, windows, dropout and samples")

    validation: float = setting(
        0.0,
        Real(0, below=1),
        "validation",
        f"share of the text to hold out; its mean loss is shown, that of {MAX_VALIDATED} documents or windows if there are more",
        "FRACTION",
    )
    validation_every: int = setting(100, Whole(1), "validation", "validate every N steps, and after the last")
    patience: int | None = setting(None, Whole(1), "validation", "stop when N validations in a row are no better than the best")

    samples: int = setting(20, Whole(0), "samples", "documents to print at the end", on_resume="any")
    temperature: float = setting(
        0.5,
        TEMPERATURE,
        "samples",
        "of the samples; low is cautious, 0 takes the likeliest character each time",
        "T",
        on_resume="any",
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value, allowed = getattr(self, option.name), option.metadata["allowed"]
            if value not in allowed and not (value is None and option.default is None):
                raise ValueError(f"{option.name} must be {allowed}, got {value!r}")
        if self.warmup > self.steps:
            raise ValueError(f"--warmup {self.warmup} is more than the {self.steps} steps")
        if self.patience is not None and not self.validation:
            raise ValueError("--patience needs --validation")
        for name in ("delimiter", "long", "keep_spaces"):
            if self.format == "text" and getattr(self, name) != FIELDS[name].default:
                raise ValueError(f"{flag_of(name)} is for documents, --format text takes a text as it is")


FIELDS: dict[str, Field[Any]] = {option.name: option for option in fields(Settings)}


def flag_of(name: str) -> str:
    """Return how the command line spells a setting."""
    return "--" + name.replace("_", "-")


def spelled(name: str, value: object) -> str:
    """Return a setting as the command line has it, such as `--steps 20`, or `no --patience`."""
    if value is None or value is False:
        return f"no {flag_of(name)}"
    return flag_of(name) if value is True else f"{flag_of(name)} {value}"


def reading(metadata: Mapping[str, Any]) -> Settings:
    """Return settings that say how the text of a model was read: by default as lines. ValueError if the file tells no sense."""
    training = metadata.get("training")
    told = metadata.get("text", {}) if training is None else training.get("settings") if isinstance(training, dict) else None
    if not isinstance(told, dict):
        raise ValueError(f"how its text was read must be told by name, it is {told!r}")
    return Settings(**{name: told[name] for name in READING if name in told})
