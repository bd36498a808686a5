"""What processes tell each other: news over the channel layer, task dispatches."""
