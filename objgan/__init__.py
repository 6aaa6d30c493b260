"""Text-to-image synthesis that shows its working: caption, boxes, shapes, image (Obj-GAN, Li et al., CVPR 2019)."""

__version__ = "0.1.0"
