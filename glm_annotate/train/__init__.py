"""Training rooms: the only part of the package that may import torch.

`loop.train(config_path)` turns a TOML config and FASTA files into a checkpoint,
`export.export(checkpoint, bundle)` turns a checkpoint into a bundle that the rest of the package
runs without torch.
"""
