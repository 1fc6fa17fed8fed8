"""Modules: operations, stand-alone networks (``networks``), and super-networks that hold them all."""
