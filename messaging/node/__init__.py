"""One serving process: lanes, dispatch, streams and the registry watch."""
