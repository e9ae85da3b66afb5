"""The words server, worker and clients share: requests, jobs, metrics, models, the job store and the queue.

Nothing here imports torch.
"""
