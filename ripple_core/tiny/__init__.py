"""The built-in model: a complete small WanPipeline folder, and what is needed to train and judge it."""
