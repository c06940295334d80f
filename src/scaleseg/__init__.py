"""Scale-aware semantic segmentation."""
