"""COCO mAP and what is read off it."""
