"""The stream and the process: sources, windows, training, publishing, serving."""
