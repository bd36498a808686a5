"""Background tasks: their schedule, their last runs, and when they are due."""
