"""The drift detectors by name: one small file each, one row each here."""

from __future__ import annotations

from monitors.detectors.adwin import Adwin
from monitors.detectors.base import Settings
from monitors.detectors.ddm import Ddm
from monitors.detectors.hddm_a import HddmA
from monitors.detectors.hddm_w import HddmW
from monitors.detectors.ks import Ks
from monitors.detectors.kswin import Kswin
from monitors.detectors.page_hinkley import PageHinkley
from monitors.detectors.psi import Psi
from monitors.detectors.shift import Shift
from monitors.detectors.wasserstein import Wasserstein

DETECTORS: dict[str, type[Settings]] = {
    row.name: row for row in (Shift, Psi, Ks, Wasserstein, Adwin, PageHinkley, Kswin, Ddm, HddmA, HddmW)
}
"""By name, the settings that build them."""
