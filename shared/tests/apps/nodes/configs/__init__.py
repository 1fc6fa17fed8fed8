"""Configs of the program."""
