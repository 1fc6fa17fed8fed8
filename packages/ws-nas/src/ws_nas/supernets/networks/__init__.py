"""Stand-alone networks from plain sizes and choices; they know no space."""
