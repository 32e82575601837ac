"""Definition trees and token lists for sparse-autoencoder features, from the weights alone."""

__version__ = "0.1.0"
