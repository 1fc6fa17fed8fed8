"""Dense to ghost, ghost to its deployed form, and what each costs."""
