"""Every error that dyx raises on purpose.

```
DyxError                      exit 1 unless noted
├── UsageError                exit 2: the call itself is off
│   ├── UnknownName           a model, rule, backend … that no table lists
│   ├── InvalidOption         an option's value
│   ├── OptionNeeded          an option that this call cannot do without
│   ├── OptionsClash          an option that makes no sense beside another one
│   ├── OutputExists          the output is there and --force was not given
│   ├── UnlikeTasks           bundles to be compared that answer different questions
│   ├── RuleMatchesNothing    a rule asked for that governs no layer of the network
│   └── RunDiffers            a run to be resumed that was begun with other settings
├── PackageMissing            an optional package; names the extra that brings it
├── DeviceMissing             a device that the backend cannot reach here
├── ProfileUnavailable        a runner whose time cannot be told apart by node
├── CheckpointError
│   ├── CheckpointUnreadable  missing, empty, truncated, of another format
│   ├── CheckpointUnsafe      refers to something that could run code
│   ├── CheckpointMismatch    keys or shapes differ from the network's
│   └── CheckpointNotFinite   NaN or infinite weights
├── ModelUnusable             a user's network that cannot be imported, built or traced
├── LayerUnreadable           a dynamic layer whose attributes are not what its adapter reads
├── FoldRefused               no rule accepts a layer; every refusal is shown
├── FoldDiffers               a folded layer does not compute what it replaces
├── ConversionFailed          a converter's error or abort
├── ParityMissed              an exported artifact differs from the dynamic network
├── BundleError
│   ├── BundleMissing         no bundle there
│   └── BundleAltered         a file is missing, unreadable or has another hash
├── DataUnusable              labelled pictures that are missing, damaged or not what they should be
├── RunUnreadable             no training run there, or one that cannot be used yet
├── NothingToReport           a place that is no run, bundle or benchmark record
├── TrainingDiverged          a loss that is NaN or infinite
├── ImageUnreadable           a file that is no image
├── InvalidTensor             an array of another dtype or shape than the spec asks for
├── OutputUnwritable          an output file or folder that cannot be written
├── RecordUnreadable          a file that is no benchmark record, or one that this dyx does not read
├── UnlikeMachines            benchmark records of machines or software that differ
├── RatioMissed               a ratio below what --fail-under asks for
└── BenchFailed               a worker process of the benchmark died or answered with an error
```

`str(error)` says what happened, to which thing, with the value seen; `error.hint` says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from math import isfinite
from pathlib import Path


class DyxError(Exception):
    """The root: catch it to catch everything that dyx raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(DyxError):
    """The call is off: an option, a name, an output that is already there."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that its table does not list; the nearest known one is offered."""

    def __init__(self, kind: str, name: str, known: Sequence[str]) -> None:
        near = get_close_matches(name, known, n=1, cutoff=0.4)
        guess = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"there is no {kind} named {name!r}", f"{guess}known: {', '.join(known)}")
        self.nearest = near[0] if near else None


class InvalidOption(UsageError):
    """An option whose value is not one it takes."""

    def __init__(self, option: str, value: object, wanted: str) -> None:
        super().__init__(f"{option} is {value!r}, which is not {wanted}", f"give {option} {wanted}")


class OptionNeeded(UsageError):
    """An option that this call cannot do without."""

    def __init__(self, option: str, reason: str, example: str) -> None:
        super().__init__(f"{option} is needed: {reason}", f"for example {option} {example}")


class OptionsClash(UsageError):
    """An option that makes no sense beside another one."""

    def __init__(self, option: str, other: str, reason: str) -> None:
        super().__init__(f"{option} makes no sense beside {other}: {reason}", f"leave {option} out")


class OutputExists(UsageError):
    """The output is there already."""

    def __init__(self, path: Path, hint: str = "--force replaces it whole") -> None:
        super().__init__(f"{path} exists already", f"{hint}, --out writes elsewhere")


class UnlikeTasks(UsageError):
    """Bundles to be compared that answer different questions; what each one takes and tells is listed."""

    def __init__(self, tasks: Mapping[str, str]) -> None:
        listed = "; ".join(f"{name}: {task}" for name, task in tasks.items())
        super().__init__(
            f"bundles of different tasks cannot be compared: {listed}",
            "name bundles that take pictures of one size and tell as many classes, --baseline among them;"
            " bench the others by themselves",
        )
        self.tasks = dict(tasks)


class RuleMatchesNothing(UsageError):
    """A rule was asked for that governs no layer of this network."""

    def __init__(self, rule: str, model: str, kinds: Sequence[str]) -> None:
        found = ", ".join(sorted(set(kinds))) or "none"
        super().__init__(
            f"--fold {rule} matches no layer of {model}",
            f"kinds of dynamic layer found there: {found}; `dyx plan {model}` lists the sites",
        )


class RunDiffers(UsageError):
    """A run to be resumed was begun with other settings; all of them are listed."""

    def __init__(self, path: Path, differences: Mapping[str, tuple[object, object]]) -> None:
        listed = "; ".join(f"{key} was {old!r}, now {new!r}" for key, (old, new) in differences.items())
        super().__init__(
            f"the run at {path} cannot be resumed otherwise than it was begun: {listed}",
            "leave those options out to go on with it, or begin another run with --out",
        )
        self.differences = dict(differences)


class PackageMissing(DyxError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed", f"pip install 'dyx[{extra}]' brings it")
        self.package = package
        self.extra = extra


class DeviceMissing(DyxError):
    """A device was asked for that the backend cannot reach here."""

    def __init__(self, backend: str, device: str, reason: str, extra: str) -> None:
        super().__init__(
            f"backend {backend} cannot use device {device!r} here: {reason}",
            f"pip install 'dyx[{extra}]' on a machine with a GPU, or ask for --device cpu",
        )


class ProfileUnavailable(DyxError):
    """A runner whose time cannot be told apart by node."""

    def __init__(self, runner: str, reason: str) -> None:
        super().__init__(f"{runner} gives no time per node: {reason}")


class CheckpointError(DyxError):
    """A checkpoint cannot be used."""


class CheckpointUnreadable(CheckpointError):
    """A checkpoint is missing, empty, truncated or of another format."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"cannot read checkpoint {path}: {reason}",
            "give a .pdparams or .pth with the state dict that paddle.save or torch.save wrote, or a .safetensors",
        )


class CheckpointUnsafe(CheckpointError):
    """A checkpoint refers to something that could run code; nothing of it was run."""

    def __init__(self, path: Path, found: str) -> None:
        super().__init__(
            f"refused checkpoint {path}: it refers to {found}, which is neither an array nor a plain container",
            "loading it would run code; nothing was run. Save the bare state dict, or use .safetensors",
        )
        self.found = found


class CheckpointMismatch(CheckpointError):
    """A checkpoint's keys or shapes are not the network's; all of them are listed at once."""

    def __init__(
        self,
        path: Path,
        missing: Sequence[str],
        extra: Sequence[str],
        misshapen: Mapping[str, str],
        looks_like: Sequence[str] = (),
        numbers: int = 0,
    ) -> None:
        parts = []
        if missing:
            parts.append(f"missing: {', '.join(missing)}")
        if extra:
            parts.append(f"not in the network: {', '.join(extra)}")
        if misshapen:
            parts.append("of another shape: " + ", ".join(f"{key} {text}" for key, text in misshapen.items()))
        guess = "is this the checkpoint of another network, number of experts or number of classes?"
        if looks_like:
            guess = (
                f"it looks like a checkpoint of {' or '.join(looks_like)}"
                f" (its {numbers:,} numbers are exactly that network's)"
            )
        super().__init__(f"checkpoint {path} does not fit the network; {'; '.join(parts)}", guess)
        self.missing = tuple(missing)
        self.extra = tuple(extra)
        self.misshapen = dict(misshapen)
        self.looks_like = tuple(looks_like)


class CheckpointNotFinite(CheckpointError):
    """A checkpoint holds NaN or infinite values."""

    def __init__(self, path: Path, keys: Mapping[str, int]) -> None:
        listed = ", ".join(f"{key} ({count} values)" for key, count in keys.items())
        super().__init__(
            f"checkpoint {path} holds NaN or infinite values in {listed}",
            "the training run that wrote it had diverged; use an earlier checkpoint",
        )


class ModelUnusable(DyxError):
    """A user's network cannot be imported, built or traced."""

    def __init__(self, source: str, reason: str, hint: str = "") -> None:
        super().__init__(f"cannot use network {source}: {reason}", hint)


class LayerUnreadable(DyxError):
    """A dynamic layer's attributes or shapes are not what its adapter reads."""

    def __init__(self, class_name: str, reason: str) -> None:
        super().__init__(
            f"a layer of class {class_name} was recognised by its name, but {reason}",
            f"dyx.register_layer({class_name!r}, adapter, replace=True) tells dyx how to read yours",
        )


class FoldRefused(DyxError):
    """No rule accepts a layer."""

    def __init__(self, path: str, refusals: Mapping[str, str], hint: str = "") -> None:
        reasons = "; ".join(f"{rule}: {reason}" for rule, reason in refusals.items())
        super().__init__(f"no rule folds {path}: {reasons}", hint or "CONTRIBUTING.md tells how to add a rule")
        self.refusals = dict(refusals)


class FoldDiffers(DyxError):
    """A folded layer does not compute what it replaces."""

    def __init__(self, path: str, rule: str, error: float, allowed: float) -> None:
        super().__init__(
            f"{rule} at {path} differs from the layer it replaces by {error:.3g} of max |y| in float64"
            f" (allowed {allowed:.3g})",
            "does the layer compute what its class name says? If it does, this is a defect of the rule",
        )


class ConversionFailed(DyxError):
    """A converter failed or died."""

    def __init__(self, step: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{step} failed: {reason}", hint)


class ParityMissed(DyxError):
    """An exported artifact does not compute what the dynamic network computes."""

    def __init__(self, misses: Sequence[str], passing: float, first_layer: str) -> None:
        would = f"--tolerance {passing:.1e} would pass" if isfinite(passing) else "no tolerance would pass"
        super().__init__(f"parity missed: {'; '.join(misses)}. {first_layer}", f"no bundle was written; {would}")
        self.passing = passing


class BundleError(DyxError):
    """A bundle cannot be used."""


class BundleMissing(BundleError):
    """There is no bundle at a path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"no bundle at {path}: {reason}", "`dyx export` writes one")


class BundleAltered(BundleError):
    """Files of a bundle are missing or changed."""

    def __init__(self, path: Path, faults: Mapping[str, str]) -> None:
        listed = ", ".join(f"{name} {fault}" for name, fault in faults.items())
        super().__init__(f"bundle {path} is not as it was written: {listed}", "export it again, or copy it again")
        self.faults = dict(faults)


class DataUnusable(DyxError):
    """Labelled pictures cannot be used: missing, damaged, or not laid out as they should be."""

    def __init__(self, source: str, reason: str, hint: str = "") -> None:
        super().__init__(f"cannot use data {source}: {reason}", hint)


class RunUnreadable(DyxError):
    """There is no training run at a path, or one that cannot be used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"no usable training run at {path}: {reason}", "`dyx train` begins one")


class NothingToReport(DyxError):
    """A place holds nothing that a page can be drawn of."""

    def __init__(self, path: Path, seen: str) -> None:
        super().__init__(
            f"nothing to report on at {path}: {seen}",
            "give a folder that `dyx train` or `dyx export` wrote, or a file of `dyx bench --json FILE`",
        )


class TrainingDiverged(DyxError):
    """A loss is NaN or infinite."""

    def __init__(self, loss: float, epoch: int, step: int, learning_rate: float, kept: str) -> None:
        super().__init__(
            f"training diverged: the loss is {loss} at step {step} of epoch {epoch}, learning rate {learning_rate:g};"
            f" {kept}",
            "begin again with a smaller --learning-rate, and look at the pictures and labels of that data",
        )


class ImageUnreadable(DyxError):
    """A file is no image that can be read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"cannot read image {path}: {reason}", "give a PNG, JPEG or another format that Pillow reads")


class InvalidTensor(DyxError):
    """An array does not fit a tensor spec."""

    def __init__(self, name: str, seen: str, wanted: str) -> None:
        super().__init__(f"tensor {name!r} is {seen}, wanted {wanted}", "`dyx inspect BUNDLE` prints the specs")


class OutputUnwritable(DyxError):
    """An output file or folder cannot be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot write {path}: {reason}", "choose another place with the option that names it")


class RecordUnreadable(DyxError):
    """A file that is no benchmark record, or one that this dyx does not read."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"cannot read the benchmark record {path}: {reason}",
            "give a file of `dyx bench --json FILE`; one of another schema is read by the dyx that wrote it",
        )


class UnlikeMachines(DyxError):
    """Benchmark records come from machines or software that differ; every difference is listed."""

    def __init__(self, differing: Mapping[str, tuple[object, object]]) -> None:
        listed = "; ".join(f"{key} {one} and {other}" for key, (one, other) in differing.items())
        super().__init__(
            f"these records were not taken on one machine with the same software: {listed}",
            "load those of one machine at a time",
        )
        self.differing = dict(differing)


class RatioMissed(DyxError):
    """Ratios below what was asked for; all of them are listed."""

    def __init__(self, least: float, missed: Sequence[str]) -> None:
        super().__init__(
            f"--fail-under {least:g} was missed by {'; '.join(missed) or 'a comparison without any ratio'}",
            "look at the notes of the rows: UNSTABLE ones deserve a longer run, --seconds",
        )
        self.missed = tuple(missed)


class BenchFailed(DyxError):
    """A worker process of the benchmark died or answered with an error."""

    def __init__(self, contender: str, reason: str) -> None:
        super().__init__(
            f"benchmark of {contender} failed: {reason}", "`dyx check BUNDLE` shows whether it runs at all"
        )
