"""What the commands do, one module a verb; ``run`` takes the composed config and returns the report."""
