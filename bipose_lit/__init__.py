"""bipose: human pose estimation experiments in PyTorch Lightning. Importing the package alone imports nothing heavy."""

__version__ = "0.1.0"
