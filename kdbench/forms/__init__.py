"""The forms that a trained network is deployed in: other runtimes, fewer bits."""
