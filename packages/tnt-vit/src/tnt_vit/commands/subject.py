"""A picture file made ready for the figures: loaded, preprocessed, and beside it a model of its size."""

from __future__ import annotations

import copy
import itertools
import os

from PIL import Image

from effkit.data import Preprocessing, load_picture
from effkit.errors import UserError
from tnt_vit.checkpoints.origin import weights_note
from tnt_vit.commands.known import preprocessing_of_weights
from tnt_vit.inference.preprocessing import preprocessing as expected
from tnt_vit.model import TNT
from tnt_vit.plots.drawing import View

__all__ = ["Subject"]


class Subject(View):
    """A :class:`~tnt_vit.plots.drawing.View` of a picture that is loaded here."""

    @classmethod
    def of(
        cls,
        model: TNT,
        picture: str | Image.Image,
        *,
        img_size: int | tuple[int, int] | None = None,
        pretrained: bool | str | os.PathLike[str] | None = None,
        name: str = "",
        preprocessing: Preprocessing | None = None,
    ) -> Subject:
        """Load and preprocess a picture.

        Args:
            model: The model; it is left as it is.
            picture: A file, the name of a bundled photograph, or a PIL picture.
            img_size: Another picture size than the model's own; position tables are resampled in a copy of the model.
            pretrained: What the weights are, as given to ``create_model``; ``None`` finds out whether they are trained.
            name: What to call the picture; by default its file's name.
            preprocessing: What the model expects of pictures; by default what ``pretrained`` tells, else the variant's.

        Raises:
            ValueError: If the size is no multiple of the patch, or the picture cannot be read.
        """
        if not isinstance(model, TNT):
            raise UserError(f"figures need a tnt_vit.TNT, whose blocks can be looked into; got {type(model).__name__}")
        weights = weights_note(model, pretrained)
        prepare = expected(model, known=preprocessing or preprocessing_of_weights(pretrained), img_size=img_size)
        if prepare.size != model.img_size:
            model = copy.deepcopy(model)
            model.set_input_size(prepare.size)
        if model.training:
            model = copy.deepcopy(model).eval()
        x = prepare(load_picture(picture, model.in_chans))
        device = next(itertools.chain(model.parameters(), model.buffers())).device
        pixels = prepare.denormalize(x)
        if not name:
            name = str(picture).replace("\\", "/").split("/")[-1] if isinstance(picture, str) else "picture"
        return cls(model, x[None].to(device), pixels[..., 0] if model.in_chans == 1 else pixels, name, weights)
