"""What the commands do: from config to objects in ``build``, then one module a verb."""
