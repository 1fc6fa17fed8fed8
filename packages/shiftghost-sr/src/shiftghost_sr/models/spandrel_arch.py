"""Our files, for whoever reads theirs with spandrel."""

from __future__ import annotations

from typing import Any

from effkit.errors import UserError
from shiftghost_sr.models.files import MARK, model_from_state

__all__ = ["register_with_spandrel"]

_ID = "ShiftGhostSR"


def register_with_spandrel(registry: Any = None) -> None:
    """Let spandrel's loader recognise files of ours, before it guesses them as anything else.

    Args:
        registry: Of spandrel; its main one if not given.

    Raises:
        UserError: If spandrel is not installed.
    """
    try:
        import spandrel
    except ModuleNotFoundError as error:
        raise UserError("spandrel is not installed: pip install 'shiftghost-sr[spandrel]'") from error
    registry = spandrel.MAIN_REGISTRY if registry is None else registry
    known = [support.architecture.id for support in registry.architectures()]
    if _ID in known:
        return

    class ShiftGhost(spandrel.Architecture):  # type: ignore[misc,type-arg]
        def __init__(self) -> None:
            super().__init__(id=_ID, name="shiftghost-sr", detect=lambda state: MARK in state)

        def load(self, state_dict: Any) -> Any:
            model: Any = model_from_state(state_dict, "given to spandrel")
            if model.grid != "lr":
                raise UserError("this network takes pictures already upscaled, which spandrel has no words for")
            return spandrel.ImageModelDescriptor(
                model, model.state_dict(), architecture=self, purpose="SR", tags=["ghost"], supports_half=True,
                supports_bfloat16=True, scale=model.scale, input_channels=model.channels,
                output_channels=model.channels,
            )  # fmt: skip

    registry.add(spandrel.ArchSupport.from_architecture(ShiftGhost(), before=tuple(known)))
