"""What can be chosen about a tuning run, validated on construction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from offramp.exits.pack import Adapter, Head, Norm, Past
from offramp.types.checks import check_integer, check_number, check_one_of

Recipe = Literal["heads", "deep", "layerskip", "router", "calm"]
RECIPES: tuple[str, ...] = get_args(Recipe)

Curriculum = Literal["all", "rotational", "gradual"]

MAX_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class DataSettings:
    """Where training data come from.

    Args:
        data: `self`: the model invents user turns and answers them; or a file (`offramp.tune.files`).
        tokens: answer tokens to train on, at least.
        batch: sequences generated at once.
        seed: of what is sampled.
        temperature, top_p: of invented user turns.
        answer_temperature: of answers; 0 is greedy.
        max_user_tokens: an invented user turn that is longer is thrown away.
        max_answer_tokens: answers, and pieces of plain text, are cut here.
    """

    data: str = "self"
    tokens: int = 200_000
    batch: int = 32
    seed: int = 0
    temperature: float = 1.0
    top_p: float = 0.95
    answer_temperature: float = 0.0
    max_user_tokens: int = 128
    max_answer_tokens: int = 384

    def __post_init__(self) -> None:
        check_integer("tokens", self.tokens, 1)
        check_integer("batch", self.batch, 1, 8192)
        check_integer("seed", self.seed, 0, MAX_SEED)
        check_number("temperature", self.temperature, 0, math.inf, low_open=True)
        check_number("top_p", self.top_p, 0, 1, low_open=True)
        check_number("answer_temperature", self.answer_temperature, 0, math.inf)
        check_integer("max_user_tokens", self.max_user_tokens, 1)
        check_integer("max_answer_tokens", self.max_answer_tokens, 2)


@dataclass(frozen=True, slots=True)
class HeadSettings:
    """What exit heads are made of; see `offramp.exits.pack`.

    Args:
        adapter: `none`, `linear` or `mlp`.
        adapter_size: inner size of an `mlp` adapter; 0 is the model's own MLP size.
        norm: `own`, `shared` or `none`.
        head: `shared`: rows of the LM head, frozen and not stored; `own`: a trained copy of them.
        head_words: tokens that heads score, the most frequent in the data; 0 for all.
        past: `deep`: heads also read the deep state of the token before.
    """

    adapter: Adapter = "mlp"
    adapter_size: int = 0
    norm: Norm = "own"
    head: Head = "shared"
    head_words: int = 8192
    past: Past = "none"

    def __post_init__(self) -> None:
        check_one_of("adapter", self.adapter, get_args(Adapter))
        check_integer("adapter_size", self.adapter_size, 0)
        check_one_of("norm", self.norm, get_args(Norm))
        check_one_of("head", self.head, get_args(Head))
        check_integer("head_words", self.head_words, 0)
        check_one_of("past", self.past, get_args(Past))

    @property
    def trained(self) -> bool:
        """Whether there is anything to train; the model's own head at an exit has nothing."""
        own = self.adapter != "none" or self.norm == "own" or self.head == "own"
        return own or self.head_words > 0 or self.past != "none"


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How exit heads are trained.

    Args:
        epochs: passes over the data.
        lr: AdamW's peak learning rate; it falls to 0 along a cosine.
        batch_tokens: tokens in a step.
        weight_decay: of matrices.
        evaluations: how often held-out data are looked at, evenly spread; a checkpoint is written each time.
        patience: training ends after this many evaluations without progress at any exit.
        train_seed: of the order of tokens.
        rollout: steps of a rollout, 1 to 8, where heads read the past: from step 2 on they see their own output there.
    """

    epochs: int = 4
    lr: float = 1e-3
    batch_tokens: int = 512
    weight_decay: float = 0.01
    evaluations: int = 20
    patience: int = 4
    train_seed: int = 0
    rollout: int = 3

    def __post_init__(self) -> None:
        check_integer("epochs", self.epochs, 1)
        check_number("lr", self.lr, 0, 1, low_open=True)
        check_integer("batch_tokens", self.batch_tokens, 1)
        check_number("weight_decay", self.weight_decay, 0, 1)
        check_integer("evaluations", self.evaluations, 1)
        check_integer("patience", self.patience, 1)
        check_integer("train_seed", self.train_seed, 0, MAX_SEED)
        check_integer("rollout", self.rollout, 1, 8)


@dataclass(frozen=True, slots=True)
class TrunkSettings:
    """What the recipe `layerskip` does to the trunk (Elhoushi et al. 2024).

    Args:
        lora_rank: of the change of each linear layer (LoRA, Hu et al. 2021).
        exit_weight: of the loss of each exit, beside 1 for the top.
        distil: the share of the top's loss that keeps it as the original trunk was; the rest is cross-entropy of the
            answers. None is 1 for data that the model makes itself, 0 for a file.
        layer_dropout: the rate at which a sequence skips the last layer in training; it falls off exponentially
            towards the first.
        curriculum: which exits learn in a step: `all`; `rotational`: one, in turn; `gradual`: one more after another
            from the deepest, all from half of the steps on.
        filled: the share of sequences in which tokens that an exit is sure of leave there, so that the others learn to
            read K and V that were filled.
    """

    lora_rank: int = 32
    exit_weight: float = 0.25
    distil: float | None = None
    layer_dropout: float = 0.0
    curriculum: Curriculum = "all"
    filled: float = 0.5

    def __post_init__(self) -> None:
        check_integer("lora_rank", self.lora_rank, 1, 4096)
        check_number("exit_weight", self.exit_weight, 0, math.inf, low_open=True)
        if self.distil is not None:
            check_number("distil", self.distil, 0, 1)
        check_number("layer_dropout", self.layer_dropout, 0, 0.9)
        check_one_of("curriculum", self.curriculum, get_args(Curriculum))
        check_number("filled", self.filled, 0, 1)


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """What routers are made of, and how they are trained.

    Args:
        router: `linear` (CALM) or `mlp`.
        router_size: inner size of an `mlp` router.
        router_epochs: passes over the data.
        router_lr: AdamW's peak learning rate.
    """

    router: Literal["linear", "mlp"] = "mlp"
    router_size: int = 64
    router_epochs: int = 4
    router_lr: float = 2e-3

    def __post_init__(self) -> None:
        check_one_of("router", self.router, ("linear", "mlp"))
        check_integer("router_size", self.router_size, 1)
        check_integer("router_epochs", self.router_epochs, 1)
        check_number("router_lr", self.router_lr, 0, 1, low_open=True)


ExitWeights = Literal["linear", "uniform", "doubling"]
ClassifierLoss = Literal["balanced", "geometric"]


@dataclass(frozen=True, slots=True)
class CalmSettings:
    """What the recipe `calm` trains, and how long (Schuster et al. 2022).

    Args:
        shape: of a new T5, such as `layers=4,decoder_layers=16,width=256` (`offramp.tune.t5_shape`); empty goes on with
            the model given.
        exit_weights: of the loss behind layer i: in proportion to i (`linear`), 1 (`uniform`) or 2^i (`doubling`).
        minutes: the time to train the model in, at most; None is all epochs.
        dropout: of sublayers.
        longest: pairs of which one side has more tokens are left out.
        classifier: the loss of classifiers: `balanced` cross-entropy, or `geometric`.
        classifier_steps: steps in which classifiers are trained, the model being frozen.
        classifier_lr: AdamW's peak learning rate in these.
    """

    shape: str = ""
    exit_weights: ExitWeights = "linear"
    minutes: float | None = None
    dropout: float = 0.0
    longest: int = 160
    classifier: ClassifierLoss = "balanced"
    classifier_steps: int = 300
    classifier_lr: float = 1e-2

    def __post_init__(self) -> None:
        check_one_of("exit_weights", self.exit_weights, get_args(ExitWeights))
        if self.minutes is not None:
            check_number("minutes", self.minutes, 0, math.inf, low_open=True)
        check_number("dropout", self.dropout, 0, 0.9)
        check_integer("longest", self.longest, 2, 4096)
        check_one_of("classifier", self.classifier, get_args(ClassifierLoss))
        check_integer("classifier_steps", self.classifier_steps, 1)
        check_number("classifier_lr", self.classifier_lr, 0, 1, low_open=True)
