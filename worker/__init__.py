"""The worker: claims jobs from the queue and has a child process generate the videos."""
