"""Files, nothing else: maps, stacks, particle metadata and micrographs, from a path to an object and back."""

from __future__ import annotations

from functools import partial

from verglas.io.acquisition import find_acquisition, mdoc_acquisitions, read_epu_xml, read_mdoc
from verglas.io.atomic import atomic_path, check_folder, check_writable, make_folder, write_bytes, write_text
from verglas.io.atoms import read_atoms, write_moved_model
from verglas.io.coordinates import read_picks, write_picks
from verglas.io.gain import read_defects, read_gain
from verglas.io.micrograph_file import write_micrograph
from verglas.io.micrographs import find_micrographs, read_ctf_table, read_micrographs, write_micrographs
from verglas.io.motion import read_motion_star, read_motioncor, write_motion_star
from verglas.io.movies import find_movies, open_movie, read_movie
from verglas.io.mrc import MrcHeader, StackWriter, read_header, read_map, read_stack, write_map, write_stack
from verglas.io.particles import read_particles, write_particles
from verglas.io.spider import read_spider_document, write_spider_document
from verglas.io.star import read_star, write_star
from verglas.io.star_columns import StarColumns, open_columns
from verglas.io.tables import read_csv, read_json, sample_star, write_csv, write_json
from verglas.io.tiff import micrograph_header, read_micrograph
from verglas.io.tilt_pairs import read_tilt_parameters

__all__ = [
    "MrcHeader",
    "StackWriter",
    "StarColumns",
    "atomic_path",
    "check_folder",
    "check_writable",
    "find_acquisition",
    "find_micrographs",
    "find_movies",
    "make_folder",
    "mdoc_acquisitions",
    "micrograph_header",
    "open_columns",
    "open_movie",
    "read_atoms",
    "read_csv",
    "read_ctf_table",
    "read_defects",
    "read_epu_xml",
    "read_gain",
    "read_header",
    "read_json",
    "read_map",
    "read_mdoc",
    "read_micrograph",
    "read_micrographs",
    "read_motion_star",
    "read_motioncor",
    "read_movie",
    "read_particles",
    "read_picks",
    "read_spider_document",
    "read_stack",
    "read_star",
    "read_tilt_parameters",
    "sample_star",
    "write_bytes",
    "write_csv",
    "write_json",
    "write_map",
    "write_micrograph",
    "write_micrographs",
    "write_motion_star",
    "write_moved_model",
    "write_particles",
    "write_picks",
    "write_spider_document",
    "write_stack",
    "write_star",
    "write_text",
]
__dir__ = partial(sorted, __all__)
