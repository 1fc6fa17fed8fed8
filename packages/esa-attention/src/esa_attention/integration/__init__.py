"""Where ESA meets a model of transformers: taking over its attention, checking it, and what that costs."""
