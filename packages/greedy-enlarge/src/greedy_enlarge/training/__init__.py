"""What needs Lightning: proxy training of candidates, and the data it runs on."""
