"""The typed configuration: one place for every setting, its default and what it means.

Nothing here computes: a value of ``auto`` is decided once by whoever uses it, logged, and stored in the run.
`yolite.settings` lays files, options and words over these defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from yolite.defaults import IMGSZ_STEP

Plain = dict[str, Any]


class _Section(BaseModel):
    """Base of all sections: unknown keys are refused, values cannot be changed afterwards."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, allow_inf_nan=False, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_bool(cls, value: Any, info: ValidationInfo) -> Any:
        # Python takes true for 1
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError(f"{value} is true or false, which means nothing here")
        return value


Positive = Annotated[float, Field(gt=0)]
Anchor = tuple[Positive, Positive]


class DataConfig(_Section):
    """What is trained and judged on."""

    @field_validator("cache", "balance", mode="before")
    @classmethod
    def _read_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare `off` as false

    source: str = Field("digits", description="data set: a YAML, a COCO json, a VOC root, a folder, or 'digits'")
    train: str | None = Field(None, description="list, folder or json that plays the role train")
    val: str | None = Field(None, description="list, folder or json that plays the role val")
    test: str | None = Field(None, description="list, folder or json that plays the role test")
    workers: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        "auto", description="loader processes; auto: by the processor count"
    )
    cache: Literal["auto", "ram", "disk", "off"] = Field(
        "auto",
        description="keep decoded images at training size; auto: in RAM if they take at most a quarter of it, "
        "else on disk (memory-mapped) if they take at most half of what is free there",
    )
    cache_dir: str | None = Field(None, description="folder for data.cache=disk [default: the user's cache folder]")
    balance: Literal["off", "classes"] | Annotated[float, Field(gt=0, le=1)] = Field(
        "off",
        description="show pictures with rare classes more often; a number t: those with a class that is on a share "
        "f < t of the pictures sqrt(t / f) times (LVIS); classes: every class equally often",
    )
    background: float = Field(1.0, ge=0, le=1, description="share of the pictures without boxes that an epoch shows")


class CodeConfig(_Section):
    """How the head's numbers become boxes; see `yolite.structures.HeadSpec`."""

    strides: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(
        (8, 16, 32), min_length=1, description="input px a cell, finest level first"
    )
    anchors_per_level: int = Field(3, ge=1, description="anchors a cell")
    anchors: Literal["auto"] | Annotated[list[Annotated[list[Anchor], Field(min_length=1)]], Field(min_length=1)] = (
        Field("auto", description="[[w, h], ...] a level, in input px; auto: k-means on the training boxes")
    )
    xy: Literal["sigmoid", "linear", "free"] = Field("sigmoid", description="code of the box centre")
    grid_scale: Annotated[float, Field(ge=1)] | tuple[Annotated[float, Field(ge=1)], ...] = Field(
        2.0, description="with xy sigmoid: how far the centre reaches, 1 = its cell; one number, or one a level"
    )
    wh: Literal["exp", "sigmoid_square", "square"] = Field("sigmoid_square", description="code of the box size")
    class_code: Literal["sigmoid", "softmax", "linear"] = Field(
        "sigmoid", description="independent or exclusive classes, or plain numbers (YOLOv1)"
    )
    objectness: Literal["sigmoid", "linear"] = Field("sigmoid", description="code of the objectness")
    classes_per: Literal["box", "cell"] = Field("box", description="class scores for each box, or one set a cell")


class ModelConfig(_Section):
    """The network, row by row; see configs/yolite.yaml."""

    name: str = Field("yolite-n", description="name of the model")
    width: float = Field(1.0, gt=0, le=1000, description="factor on the channels")
    depth: float = Field(1.0, gt=0, le=1000, description="factor on the repeats n")
    act: Literal["silu", "relu", "leaky", "prelu", "mish", "tanh", "relu6", "logistic", "hard_swish"] | None = Field(
        None, description="activation of the rows that name none; null: their own default, silu"
    )
    norm: Literal["bn", "group", "none"] | None = Field(
        None, description="norm of the rows that name none; null: their own default, bn"
    )
    eps: Positive | None = Field(None, description="what norms add to the variance; null: their own default, 1e-5")
    down: Literal["stride", "max", "avg"] | None = Field(
        None, description="what halves the maps in the conv rows that do not say: their stride or a pool; null: stride"
    )
    init: Literal["he_fan_out", "he_fan_in", "xavier"] = Field(
        "he_fan_out", description="distribution that the weights of the convolutions are drawn from"
    )
    pretrained: str | None = Field(
        None,
        description="first weights of torchvision blocks: a file of torchvision's, or `cache` to find it in its own "
        "cache folder (nothing is downloaded); null: drawn",
    )
    backbone: list[Plain] = Field(default_factory=list, description="layers from the picture to the feature maps")
    neck: list[Plain] = Field(default_factory=list, description="layers that join feature maps of several strides")
    head: list[Plain] = Field(default_factory=list, description="layers that give the raw maps")
    code: CodeConfig = CodeConfig()


class PreprocessConfig(_Section):
    """How a picture becomes network input; see `yolite.structures.Preprocess`."""

    mode: Literal["letterbox", "stretch"] = Field("letterbox", description="keep the aspect ratio and pad, or not")
    pad: int = Field(114, ge=0, le=255, description="grey value of the padding")
    mean: tuple[float, float, float] = Field((0.0, 0.0, 0.0), description="per channel, 0 to 1")
    std: tuple[Positive, Positive, Positive] = Field((1.0, 1.0, 1.0), description="per channel, 0 to 1")


class TrainConfig(_Section):
    """How it is trained."""

    epochs: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="passes over the training images; auto: 12,800 pictures, but 12 to 200 passes"
    )
    batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        16, description="images a step, over all processes; auto: the most that fit on the GPU"
    )
    accumulate: int = Field(1, ge=1, description="parts a batch is computed in, one after another, to save memory")
    optimizer: Literal["sgd", "adam", "adamw", "muon", "rmsprop", "adagrad", "adadelta"] = Field(
        "muon", description="optimiser"
    )
    lr: float = Field(0.004, gt=0, le=1e4, description="peak learning rate, for the whole batch")
    final_lr: float = Field(0.15, ge=0, le=1, description="learning rate at the end, as a share of the peak")
    schedule: Literal["cosine", "linear", "step", "constant"] = Field(
        "cosine", description="learning rate after the warm-up"
    )
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.7, 0.9), description="schedule step: shares of the run at which the rate falls to a tenth"
    )
    warmup_epochs: float = Field(1.0, ge=0, description="epochs over which the learning rate rises from 0")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD, Muon and RMSprop, beta1 of Adam and AdamW")
    weight_decay: float = Field(0.05, ge=0, description="on convolution weights alone, not on BN or biases")
    l1: float = Field(0.0, ge=0, description="L1 penalty, on the same weights")
    clip: float = Field(10.0, ge=0, description="largest gradient norm; 0: no clipping")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the weight average that is evaluated; 0: none")
    transfer: Literal["all", "last", "head"] = Field(
        "all", description="what learns: everything, the layers after the backbone, or the head alone"
    )
    freeze: tuple[str, ...] = Field(
        (), description="what does not learn, BN statistics included: backbone, neck, a layer's name or a pattern"
    )
    freeze_bn: bool = Field(False, description="keep all BN statistics as they are (fine-tuning with small batches)")
    lr_factors: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="factors on the learning rate by section, layer or pattern: {backbone: 0.1}"
    )
    multi_scale: float = Field(0.0, ge=0, lt=1, description="input sizes from (1 - s) to (1 + s) times imgsz; 0: off")
    multi_scale_every: int = Field(10, ge=1, description="steps between two draws of the input size")
    best_by: Literal[
        "AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl", "val_loss"
    ] = Field("AP", description="the metric that best.ckpt and early stopping go by")
    patience: int = Field(0, ge=0, description="stop after so many epochs without a better best_by; 0: never")
    on_nonfinite: Literal["lower", "stop"] = Field(
        "lower", description="a loss or gradient that is no number: go back and on at half the rate, or stop"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the processor has it, else fp16 on a GPU, else fp32"
    )
    channels_last: bool = Field(True, description="memory format of the training step; faster on CPU and GPU")
    compile: bool = Field(False, description="torch.compile the network (slow to start)")
    sync_bn: bool = Field(False, description="BN statistics over all processes (GPU only)")
    checkpoint_minutes: float = Field(2.0, ge=0, description="time between saves inside an epoch; 0: every step")
    checkpoint_steps: int = Field(0, ge=0, description="steps between saves inside an epoch; 0: by time alone")
    gradient_stats: int = Field(0, ge=0, description="log weights and gradients by layer every so many steps; 0: off")
    tensorboard: bool = Field(False, description="write TensorBoard's event files into the run folder")


class AugmentConfig(_Section):
    """What training does to the pictures; evaluation and detection do none of it."""

    mosaic: float = Field(0.5, ge=0, le=1, description="share of samples put together from four images")
    mixup: float = Field(0.0, ge=0, le=1, description="share of samples blended with another image")
    copy_paste: float = Field(0.0, ge=0, le=1, description="share of samples into which boxes of another image go")
    close_mosaic: float = Field(
        0.2, ge=0, le=1, description="share of the epochs, at the end, without mosaic, mixup and copy_paste"
    )
    scale: float = Field(0.5, ge=0, lt=1, description="zoom by a factor from 1 − s to 1 / (1 − s)")
    translate: float = Field(0.1, ge=0, le=1, description="shift by up to this share of the input")
    hflip: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "auto",
        description="chance of a mirror image; auto: 0.5 unless the data "
        "set says that its classes do not survive it (mirror_safe: false)",
    )
    vflip: float = Field(0.0, ge=0, le=1, description="chance of an upside-down image")
    crop: float = Field(0.0, ge=0, le=1, description="chance of a crop that keeps all boxes, enlarged to the input")
    rotate: float = Field(0.0, ge=0, le=180, description="rotation by up to so many degrees either way")
    shear: float = Field(0.0, ge=0, le=60, description="shear by up to so many degrees, in x and in y")
    hue: float = Field(0.015, ge=0, le=0.5, description="shift of the hue, share of the circle")
    saturation: float = Field(0.5, ge=0, le=1, description="factor on the saturation, 1 ± this")
    brightness: float = Field(0.3, ge=0, le=1, description="factor on the brightness, 1 ± this")
    blur: float = Field(0.0, ge=0, le=1, description="chance of a blurred image (out of focus or moving)")
    noise: float = Field(0.0, ge=0, le=1, description="chance of a noisy image")
    cutout: float = Field(0.0, ge=0, le=1, description="chance of one to four grey holes")
    min_visible: float = Field(
        0.25, ge=0, le=1, description="a box cut or covered to less than this share of its area goes"
    )


class AssignConfig(_Section):
    """Which predictions answer for which objects; see `yolite.training.assign`."""

    rule: Literal["ratio", "best_anchor", "best_iou"] = Field(
        "ratio", description="all anchors of similar shape; the one most similar (YOLOv2, v3); the box of the cell "
        "that overlaps most at present (YOLOv1)"
    )  # fmt: skip
    ratio: float = Field(
        4.0, gt=1, description="rule ratio: an anchor takes a box whose sides differ by less than this factor"
    )
    neighbours: bool = Field(True, description="rule ratio: also the two nearest neighbour cells of the box centre")
    ignore_iou: float = Field(0.7, ge=0, le=1, description="other predictions above this IoU are not background")


class LossConfig(_Section):
    """Weights of the loss parts; see `yolite.training.loss`."""

    @field_validator("class_weights", mode="before")
    @classmethod
    def _read_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # as in `DataConfig`

    box: float = Field(5.0, ge=0, description="weight of the box part")
    objectness: float = Field(1.0, ge=0, description="weight of the objectness part")
    classes: float = Field(1.0, ge=0, description="weight of the class part")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each class target spread over all classes")
    class_weights: Literal["off", "auto"] | Annotated[list[Positive], Field(min_length=1)] = Field(
        "off",
        description="weight of each class in the class part, [w, ...]; auto: one over its boxes an epoch, 1 on average",
    )
    box_by: Literal["overlap", "squared"] = Field(
        "overlap", description="error of a box: 1 - IoU, or squared errors in the numbers of the code (YOLOv1 to v3)"
    )
    iou: Literal["iou", "giou", "diou", "ciou"] = Field("ciou", description="overlap measure of box_by overlap")
    favour_small: bool = Field(
        False, description="multiply the error of a box by 2 - w·h, its share of the input (YOLOv3)"
    )
    objectness_by: Literal["cross_entropy", "squared"] = Field(
        "cross_entropy", description="error of the objectness (YOLOv1 and v2: squared)"
    )
    objectness_target: Literal["iou", "one"] = Field(
        "iou", description="what the objectness of an object's box aims at: the IoU it reaches, or one (YOLOv3)"
    )
    object: float = Field(1.0, ge=0, description="weight of objects inside the objectness part")
    no_object: float = Field(1.0, ge=0, description="weight of all other predictions inside it")
    classes_by: Literal["cross_entropy", "squared"] = Field(
        "cross_entropy", description="error of the classes (YOLOv1: squared)"
    )
    prior: float = Field(
        0.01, ge=0, description="inside the box part, weight of the pull of all other boxes to their anchors (YOLOv2)"
    )
    prior_images: int = Field(0, ge=0, description="how many images that pull lasts; 0: none")
    divide_by: Literal["positives", "images"] = Field(
        "positives", description="what the sums over a batch are divided by (YOLOv1 to v3: images)"
    )
    assign: AssignConfig = AssignConfig()


class EvalConfig(_Section):
    """How boxes are picked for the metric (COCO's custom: a low confidence, 100 boxes an image)."""

    conf: float = Field(0.001, ge=0, le=1, description="least score")
    iou: float = Field(0.65, ge=0, le=1, description="NMS threshold")
    max_det: int = Field(100, ge=1, description="most boxes an image")
    batch: int = Field(16, ge=1, description="images at once")
    beta: float = Field(
        1.0, gt=0, le=100, description="the threshold to deploy has the best F-beta; above 1: recall first"
    )
    precision: float | None = Field(
        None,
        gt=0,
        le=1,
        description="the threshold to deploy is the lowest with this precision (beta is not used then)",
    )


class Config(_Section):
    """Everything a run depends on."""

    seed: int = Field(0, ge=0, lt=2**63, description="every draw comes from it")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    imgsz: tuple[int, int] = Field((320, 320), description="input (height, width), multiples of 32; S, HxW or [H, W]")
    overfit: int = Field(0, ge=0, description="train and judge on the first N training images alone (a sanity check)")
    weights: str | None = Field(None, description="checkpoint to start from")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    loss: LossConfig = LossConfig()
    eval: EvalConfig = EvalConfig()

    @field_validator("imgsz", mode="before")
    @classmethod
    def _read_imgsz(cls, value: Any) -> Any:
        return parse_imgsz(value)


def parse_imgsz(value: Any) -> tuple[int, int]:
    """Read an input size: 320, '320', '320x256' (height x width) or [320, 256].

    Raises:
        ValueError: not a size, or not a multiple of 32.
    """
    parts: Sequence[Any]
    if isinstance(value, str):
        parts = value.lower().split("x")
    elif isinstance(value, (list, tuple)):
        parts = value
    else:
        parts = [value]
    try:
        sides = [int(str(p)) for p in parts]
    except ValueError:
        sides = []
    if len(sides) == 1:
        sides = sides * 2
    step = IMGSZ_STEP
    if len(sides) != 2 or min(sides) < step:
        raise ValueError(f"{value!r} is not an input size: give S or HxW in px, at least {step}")
    for side in sides:
        if side % step:
            low = max(step, side // step * step)
            raise ValueError(f"{side} is not a multiple of {step} (the coarsest stride): give {low} or {low + step}")
    return sides[0], sides[1]


def to_plain(config: Config) -> Plain:
    """Return the configuration as plain data (lists, numbers, strings) for YAML and checkpoints."""
    plain: Plain = config.model_dump(mode="json")
    return plain
