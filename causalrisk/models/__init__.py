"""The classes and functions of the public interface: models, results, comparisons."""
