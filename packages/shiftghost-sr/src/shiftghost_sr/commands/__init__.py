"""What a command does: config to objects, then one module a verb."""
