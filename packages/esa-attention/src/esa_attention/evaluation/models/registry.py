"""Models by name, where they can be had.

Nothing is ever downloaded unless the user names a model on a hub in ``path``. The small ones need no download at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from effkit.arguments import check_arguments
from effkit.checkpoints import check_folder
from effkit.errors import UserError, choose
from esa_attention.evaluation.models.geometries import PUBLISHED, TINY_FAMILIES, config_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["FROM_PATH", "MODELS", "STORIES_FILES", "build_model", "config_for", "list_models", "load_tokenizer"]

FROM_PATH = (*PUBLISHED, "causal_lm")  # read by transformers, with a tokenizer; the last is any there is
STORIES_FILES = ("stories260K.bin", "tok512.bin")


def list_models() -> list[str]:
    """Names that :func:`build_model` knows."""
    return list(MODELS)


def build_model(
    name: str,
    path: str | os.PathLike[str] | None = None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    device_map: str | dict[str, Any] | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Build or load a named model in evaluation mode.

    Args:
        name: One of :func:`list_models`.
        path: Where the weights are: a folder with stories260K.bin or that file; a folder saved by ``save_byte_lm``; a
            transformers folder or the name of a model on a hub. Without it the published models and ``stories260k``
            cannot be had, and ``byte_lm`` is trained, which takes a minute or two.
        device: Where the model goes.
        dtype: Of the weights.
        device_map: For models read by transformers: spread over devices, as in ``from_pretrained``. Needs accelerate.
        **options: What the model takes: ``family`` and ``seed`` (tiny_random), arguments of ``constructed_induction``
            and ``train_byte_lm``, or of ``from_pretrained``.

    Returns:
        A stock transformers model.

    Raises:
        UserError: If the name is unknown or the weights cannot be had; one line that says why.
    """
    choose("model", name, list_models())
    if device_map is not None and name not in FROM_PATH:
        raise UserError(f"device_map is for {', '.join(FROM_PATH)}; {name} fits on one device")
    if path is not None and name in ("tiny_random", "constructed_induction"):
        raise UserError(f"model={name!r} is built here and takes no path, got {os.fspath(path)!r}")
    if name in FROM_PATH:
        return _pretrained(name, path, device=device, dtype=dtype, device_map=device_map, **options)
    return MODELS[name](path, device=device, dtype=dtype, **options)


def _tiny(path: Any, *, device: Any, dtype: torch.dtype, family: str = "llama", seed: int = 0, **overrides: Any) -> Any:
    import transformers

    from esa_attention.evaluation.models.blank import blank_model, placed

    check_arguments(_tiny, {"family": family, "seed": seed})
    config = config_for("tiny_random", family=family, **overrides)
    model_class = getattr(transformers, f"{TINY_FAMILIES[family][0]}ForCausalLM")
    return placed(blank_model(model_class, config, seed=seed), device, dtype)


def _constructed(path: Any, **options: Any) -> Any:
    from esa_attention.evaluation.models.constructed import constructed_induction

    check_arguments(constructed_induction, options)
    return constructed_induction(**options)


def _stories(path: str | os.PathLike[str] | None, *, device: Any, dtype: torch.dtype) -> Any:
    from esa_attention.evaluation.models.stories import load_llama2c

    return load_llama2c(_stories_file(path, STORIES_FILES[0]), device=device, dtype=dtype)


def _stories_file(path: str | os.PathLike[str] | None, wanted: str) -> Path:
    """A file of stories260k, from its folder or from the path of either file."""
    if path is None:
        raise UserError(
            f"model='stories260k' needs path=FOLDER with {' and '.join(STORIES_FILES)} in it; nothing is downloaded"
        )
    path = Path(path)
    if path.is_dir():
        path = path / wanted
    elif path.name in STORIES_FILES or wanted != STORIES_FILES[0]:
        path = path.with_name(wanted)  # beside the model, whatever the model is called
    if not path.is_file():
        raise UserError(
            f"path={os.fspath(path)!r} does not exist; model='stories260k' needs {' and '.join(STORIES_FILES)} in one "
            "folder, and nothing is downloaded"
        )
    return path


def _byte_lm(path: str | os.PathLike[str] | None, *, device: Any, dtype: torch.dtype, **options: Any) -> Any:
    from esa_attention.evaluation.models.blank import placed
    from esa_attention.evaluation.models.byte_lm import load_byte_lm, train_byte_lm

    if path is None:
        check_arguments(train_byte_lm, options)
        return placed(train_byte_lm(**options).model, device, dtype)
    if options:
        raise UserError(f"path={os.fspath(path)!r} is a trained byte_lm and takes no {', '.join(options)}")
    return placed(load_byte_lm(path), device, dtype)


def _pretrained(
    name: str, path: str | os.PathLike[str] | None, *, device: Any, dtype: torch.dtype, device_map: Any, **options: Any
) -> Any:
    from transformers import AutoModelForCausalLM

    if path is None:
        raise UserError(
            f"model={name!r} needs path=FOLDER or path=NAME_ON_A_HUB for its weights; nothing is downloaded by itself"
        )
    if device_map is not None:
        try:
            import accelerate  # noqa: F401
        except ImportError as error:
            raise UserError("device_map needs accelerate, which is not installed: pip install accelerate") from error
        options["device_map"] = device_map
    try:
        if os.path.isdir(path):
            check_folder(path)  # a file that is cut short, or a shard that is missing, is named
        model = AutoModelForCausalLM.from_pretrained(os.fspath(path), dtype=dtype, **options)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise UserError(f"path={os.fspath(path)!r} cannot be loaded: {_first_line(error)}") from error
    return model.eval() if device_map is not None else model.to(device).eval()


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def load_tokenizer(name: str, path: str | os.PathLike[str] | None = None) -> Any:
    """The tokenizer beside a model.

    Args:
        name: One of :func:`list_models`.
        path: As for :func:`build_model`.

    Returns:
        A tokenizer of transformers or of llama2.c, or ``None`` for models whose tokens are bytes or symbols.

    Raises:
        UserError: If the name is unknown or the tokenizer cannot be had.
    """
    choose("model", name, list_models())
    if name == "stories260k":
        from esa_attention.evaluation.models.llama2c_tokenizer import Llama2cTokenizer

        return Llama2cTokenizer.load(_stories_file(path, STORIES_FILES[1]))
    if name not in FROM_PATH:
        return None
    if path is None:
        raise UserError(f"the tokenizer of model={name!r} needs path=FOLDER or path=NAME_ON_A_HUB")
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(os.fspath(path))
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"tokenizer in path={os.fspath(path)!r} cannot be loaded: {_first_line(error)}") from error


MODELS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(FROM_PATH, _pretrained),
    "tiny_random": _tiny,
    "constructed_induction": _constructed,
    "stories260k": _stories,
    "byte_lm": _byte_lm,
}
