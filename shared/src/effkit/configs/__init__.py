"""Configs that all packages share: base configs of commands, and groups; `effkit.cli` puts them on the search path."""
