"""The consuming roles: each keeps its role's state and turns records into calls."""

from tailrace_ingestion.consumers.aggregating import Aggregating
from tailrace_ingestion.consumers.archiving import Archiving
from tailrace_ingestion.consumers.compacting import Compacting
from tailrace_ingestion.consumers.joining import Joining
from tailrace_ingestion.consumers.specs_in_force import SpecEffects, SpecsInForce
from tailrace_ingestion.consumers.validating import Validating

__all__ = ["Aggregating", "Archiving", "Compacting", "Joining", "SpecEffects", "SpecsInForce", "Validating"]
