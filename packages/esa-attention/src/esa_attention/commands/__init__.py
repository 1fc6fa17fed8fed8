"""What the commands do: ``build`` makes objects of a config, every other module is a verb."""
