"""What each command does: from a composed config to objects, and from these to a report."""
