"""An atlas on disk: a folder with a plan and a Parquet file for every part of its features.

A part is written under another name and renamed, so that a folder holds whole parts only, whenever its writer is
killed; what is missing can be made another time. One process at a time writes to a folder.
"""
