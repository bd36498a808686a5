"""Messages between processes: news over the channel layer, and task dispatches."""
