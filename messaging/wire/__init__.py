"""The WebSocket edge: admission, handshake, consumer, close codes."""
