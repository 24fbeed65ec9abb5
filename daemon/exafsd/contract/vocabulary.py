"""Every code on the wire, with what it means: flags, reasons of rejection, problems.

The schemas, ``docs/reference/reasons.md`` and the words of dashboard and terminal are made from
here. A code that a later version adds is no error for a reader of this one.
"""

from enum import StrEnum
from typing import Any, Self

#: key of an event page whose rows were missed, and fetched from an archive with their arrays inside
BACKFILLED_KEY = "exafsd_backfilled"


class Code(StrEnum):
    """A code with two explanations: `words` for a line on a screen, `meaning` (Markdown) in full.

    A code with ``<signal>`` in it stands for one of each detector signal: `of` makes them.
    """

    words: str
    meaning: str

    def __new__(cls, value: str, words: str = "", meaning: str = "") -> Self:
        """Make a member; `meaning` is `words` where there is no more to say."""
        return cls._make(value, words, meaning or words)

    @classmethod
    def _make(cls, value: str, words: str, meaning: str) -> Self:
        member = str.__new__(cls, value)
        member._value_ = member._name_ = value
        member.words, member.meaning = words, meaning
        return member

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """Code of one signal, such as ``saturated_it``."""
        for family in cls:
            prefix, placeholder, _ = family.value.partition("<signal>")
            if placeholder and isinstance(value, str) and value.startswith(prefix):
                words = family.words.replace("<signal>", value.removeprefix(prefix))
                return cls._make(value, words, family.meaning)
        return None

    def of(self, signal: str) -> Self:
        """Return this code for one signal."""
        return type(self)(self.value.replace("<signal>", signal))

    @classmethod
    def explain(cls, code: str) -> str:
        """Words of a code; one that this version does not know is its own explanation."""
        try:
            return cls(code).words
        except ValueError:
            return code


def known_codes(vocabulary: type[Code]) -> dict[str, Any]:
    """Keyword of a JSON schema: the codes of this version, where others are valid as well."""
    return {"x-known-values": [code.value for code in vocabulary]}


class Flag(Code):
    """What was noticed about a spectrum (`quality`); it is published all the same."""

    POINTS_DROPPED = "points_dropped", "a few bad points were left out"
    PADDED = (
        "padded",
        "the empty end of its arrays was cut off",
        "the arrays end with points that are NaN or zero in every column: they are longer than the"
        " sweep, and were cut",
    )
    ENERGY_UNSORTED = (
        "energy_unsorted",
        "the points came out of order",
        "the points came in another order than by energy, by more than 1 eV in the mean; an"
        " encoder's jitter is less",
    )
    ENERGIES_MERGED = "energies_merged", "readings at one energy were averaged"
    SATURATED = (
        "saturated_<signal>",
        "<signal> is saturated",
        "a detector reached the count given in `adapter.saturation`",
    )
    LOW_FLUX = (
        "low_flux_<signal>",
        "<signal> has few counts",
        "the median count of a detector is below `adapter.low_flux`",
    )
    FOIL_MISSING = (
        "foil_missing",
        "the reference foil could not be seen",
        "the foil's edge could not be seen in this sweep; the last shift of its direction holds,"
        " if there is one",
    )
    FOIL_OUTLIER = (
        "foil_outlier",
        "the foil is off its drift, not followed yet",
        "the foil is more than `calibration.jump` (and 5 standard errors) off its drift, for the"
        " first time: not followed",
    )
    ENERGY_JUMP = (
        "energy_jump",
        "the energy scale has jumped",
        "two sweeps agree that the energy scale has jumped; it is followed from here on",
    )
    FOIL_LOST = (
        "foil_lost",
        "the foil is too far off to be believed",
        "the shift is more than `calibration.max_shift`; not applied, the last one holds",
    )
    REBIN_FILLED = (
        "rebin_filled",
        "some bins were filled from their neighbours",
        "up to 10 % of the bins had no point and were filled from their neighbours",
    )
    REBIN_SPARSE = (
        "rebin_sparse",
        "too few points to rebin",
        "more bins had none, or there are fewer bins than `reduction.min_points`: the points are"
        " as measured",
    )
    DEGLITCHED = (
        "deglitched",
        "glitches were replaced",
        "single points were replaced as `quality.deglitch` asks",
    )
    GLITCHY = (
        "glitchy",
        "too many glitches to replace",
        "more than 3 % of the points would have had to be replaced; none was",
    )
    OUTLIER = (
        "outlier",
        "unlike the sweeps before it",
        "the normalised spectrum is farther from the running mean of its run than `quality.outlier`"
        " times the usual distance: a disturbed sweep, or the first of a change. Three alike are a"
        " change, and the series goes on from them",
    )
    REMEASURED = (
        "remeasured",
        "points were measured again; the earlier readings are in it",
        "points were measured again under their numbers, as after a pause, and could not take the"
        " place of the earlier ones: streams are joined on their times, or `adapter.delay` is set."
        " Leave the sweep out, or replay the run without the delay",
    )
    PARTIAL = (
        "partial",
        "the sweep is not complete",
        "the sweep spans less than 90 % of the longest of the 8 before it (the first: of the"
        " second), or its run was aborted, or the energy did not turn for 1,000,000 points",
    )
    GAP = (
        "gap",
        "points of the sweep are missing",
        "points of the sweep are missing, by their sequence numbers",
    )
    BACKFILLED = (
        "backfilled",
        "fetched from the archive after it was missed",
        "events of the sweep, or of the one before it, did not come live and were fetched from"
        " `backfill.catalog`",
    )
    AFTER_GAP = (
        "after_gap",
        "earlier sweeps of the run are missing",
        "sweeps before it were lost, so what depends on earlier sweeps (averages, calibration, what"
        " the sweeps of a run share) is not as it would have been; a replay from the archive is",
    )
    RENUMBERED = (
        "renumbered",
        "points of the run are missing: its number may be too low",
        "sweeps are cut from a stream in which points are missing, so its number may not be that of"
        " an undisturbed analysis; a replay from the archive has the right one",
    )
    DELAY_IGNORED = (
        "delay_ignored",
        "a detector delay could not be applied",
        "`adapter.delay` names a signal of the sweep, but its points have no times",
    )
    WRONG_ELEMENT = (
        "wrong_element",
        "the edge is not where this element has it",
        "E0 is more than 30 eV from the tabulated edge; parameters are withheld",
    )
    EDGE_MOVED = (
        "edge_moved",
        "the edge is not where this material has it: check the energy scale",
        "E0 is more than 8 eV from where the model's material has it: the monochromator is not"
        " calibrated, or the absorber has another oxidation state. R and σ² do not depend on it",
    )
    EDGE_SHAPE = (
        "edge_shape",
        "another near edge than this material alone: another phase beside it?",
        "the near edge is not that of [measured spectra](../explanation/trust.md#the-near-edge) of"
        " the model's material: a second phase, another structure, over-absorption, or"
        " nanoparticles. Edge step, pre-edge line, energy scale, resolution and heat are allowed"
        " for",
    )
    E0_OFF = (
        "e0_off",
        "E0 is not where this material has it: another phase beside it?",
        "what is read as E0 is more than 2 eV (or its own error bar) from where measured spectra of"
        " the model's material have it, counted from the middle of the edge: R may be off by"
        " 0.01 Å and more. Beyond 4 eV parameters are withheld",
    )
    OFF_CRYSTAL = (
        "off_crystal",
        "a fit has R, N or E0 unusual for its crystal: is it this material?",
        "the model has no network, and what a fit about its crystal has come to is believed but"
        " unusual: R of the nearest shell more than 0.03 Å from the crystal's, or changed by 1.2 %"
        " more or less than the distances of farther shells, N·S0² over the crystal's N outside"
        " 0.65 to 1.2, or E0 more than 8.5 eV from where it usually is. A wrong structure fits"
        " often just so",
    )
    NOISY_END = (
        "noisy_end",
        "mostly noise at high k; read without it",
        "from some k on, 10 Å⁻¹ or more, there is more noise than signal, and only the part before"
        " it fits the model. The network was given that part; the polish uses all data",
    )
    POOR_FIT = (
        "poor_fit",
        "fits worse than reference spectra: another phase beside it?",
        "the parameters are believed, but its score or R-factor is above those of the measured"
        " spectra that the model was [judged by](../explanation/trust.md#the-trust-score), or,"
        " where there are none, its score above that of all but a few simulated ones: a second"
        " phase of a third does that, and so may disorder",
    )
    OTHER_PHASES = (
        "other_phases",
        "a part of the sample is another phase",
        "the linear combination finds more than 3 %, beyond 3 standard deviations, of other phases"
        " than the model's, while the parameters are those of one material",
    )
    FLUORESCENCE_AMPLITUDE = (
        "fluorescence_amplitude",
        "the amplitude is a lower limit (self-absorption)",
        "measured in fluorescence, and the sample is not [declared](../howto/coordination.md)"
        " dilute or corrected: N·S0² is a lower limit, N is withheld",
    )
    SHORT_K_RANGE = (
        "short_k_range",
        "the scan ends too early in k",
        "the data end below `reduction.k_max_min`; parameters are withheld",
    )
    REFERENCE_TEMPERATURE = (
        "reference_temperature",
        "a reference in it was measured at another temperature",
        "a [reference](../howto/composition.md) with a share of 0.05 or more was measured more than"
        " 100 K hotter or colder than the sample is, by the reference's file and the sweep's"
        " context. Heat is allowed for in the fit, but shares may be off",
    )


#: flags that say that the parameters may be wrong, and not only less sure than usual
DOUBTS = frozenset({
    Flag.POOR_FIT, Flag.EDGE_SHAPE, Flag.EDGE_MOVED, Flag.E0_OFF, Flag.OFF_CRYSTAL, Flag.OUTLIER,
    Flag.GLITCHY, Flag.REMEASURED, Flag.OTHER_PHASES,
})  # fmt: skip


class Reason(Code):
    """Why a sweep, channel and edge gave no result (`rejected.reason`)."""

    MISSING_COLUMN = (
        "missing_column",
        "energy or a detector is not in the documents under the names of `[adapter]`",
    )
    NOT_NUMBERS = "not_numbers", "a column is no array of numbers"
    SHAPE_MISMATCH = "shape_mismatch", "a column is not as long as the energy"
    TOO_FEW_POINTS = (
        "too_few_points",
        "fewer points (or distinct energies) than `reduction.min_points`",
    )
    NON_FINITE = (
        "non_finite",
        "more NaN, infinite or empty points than `reduction.max_bad_share`",
    )
    I0_ZERO = "i0_zero", "i0 has no counts at most points: shutter, gain, dark offset"
    IT_ZERO = "it_zero", "it has no counts at most points: shutter, gain, dark offset"
    IR_ZERO = "ir_zero", "ir has no counts at most points: shutter, gain, dark offset"
    ENERGY_UNIT = (
        "energy_unit",
        "the energies cannot be eV; set `adapter.energy.unit`, or d-spacing and offset of an angle",
    )
    UNKNOWN_ELEMENT = (
        "unknown_element",
        "element or edge do not exist, or none was named and none could be guessed",
    )
    NO_EDGE = (
        "no_edge",
        "the edge is outside the scan, or there is no step above the scatter at E0",
    )
    NO_FOIL = (
        "no_foil",
        "the reference channel shows no edge: no foil in the beam? Said once per run",
    )
    LARCH_FAILED = "larch_failed", "Larch gave up; the detail has its own words"
    ASSET_MISSING = (
        "asset_missing",
        "an external file was refused (`source.asset_roots`) or did not arrive in time",
    )
    BAD_SETTINGS = (
        "bad_settings",
        '`start["exafsd"]` asked for something that does not exist or is not allowed, or'
        " `adapter.dark` or `adapter.gain` name metadata that have no such number",
    )
    OVERLOAD = (
        "overload",
        "the sweep waited longer than `service.max_lag`; replay it from the archive",
    )
    UNREADABLE = (
        "unreadable",
        "(`exafsd analyze`) the file is missing, or no table of numbers",
    )
    AMBIGUOUS_COLUMNS = (
        "ambiguous_columns",
        "(`exafsd analyze`) names and columns of a file do not match, or come twice: it is not"
        " clear which belong together",
    )
    INTERNAL = (
        "internal",
        "an error in exafsd; the next spectrum is analysed; please report it",
    )


class Problem(Code):
    """Trouble with documents, files or peers (`status.problems`, `status.drops`)."""

    BAD_FRAME = "bad_frame", "a ZeroMQ frame that is no document"
    PICKLE = "pickle", "a document came as pickle while `source.pickle` is off"
    BAD_DOCUMENT = "bad_document", "a document that cannot be read"
    UNKNOWN_NAME = "unknown_name", "a document of an unknown kind"
    UNKNOWN_RUN = "unknown_run", "a document of a run that started before exafsd, or never"
    UNKNOWN_DESCRIPTOR = (
        "unknown_descriptor",
        "an event of a descriptor that was never seen: its run started before exafsd",
    )
    UNKNOWN_RESOURCE = (
        "unknown_resource",
        "a datum of a resource that was never seen: its run started before exafsd",
    )
    REPEATED_START = "repeated_start", "a run was started twice; the second start is ignored"
    REPEATED = "repeated", "events came twice; the second ones are skipped"
    GAP = "gap", "events are missing; replay the run from the archive"
    BACKFILLED = "backfilled", "what was missed has been fetched from `backfill.catalog`"
    UNFILLED = "unfilled", "what was missed could not be fetched from `backfill.catalog` in time"
    LOST_STOP = "lost_stop", "a run never ended; it was closed"
    NO_SPECTRUM = "no_spectrum", "a run held no XAFS scan by the adapter's names"
    BAD_SETTINGS = (
        "bad_settings",
        '`start["exafsd"]`, `adapter.dark` or `adapter.gain` ask for what is not there: every sweep'
        " of the run is rejected",
    )
    ENERGY_UNIT = (
        "energy_unit",
        "the energies of a stream cannot be turned into eV: its sweeps are rejected",
    )
    ASSET_REFUSED = "asset_refused", "an external file is outside `source.asset_roots`"
    ASSET_READER = (
        "asset_reader",
        "the process that reads external files did not answer, and was started anew; its file is"
        " left alone for a while",
    )
    AUDIT = (
        "audit",
        "the compiled reduction and Larch disagree on a spectrum, or agree again, or Larch could"
        " not be asked",
    )
    INTERNAL = "internal", "an error in exafsd; it goes on; please report it"
    INBOX_FULL = "inbox_full", "documents were lost because the queue was full"
    SHUTDOWN = "shutdown", "documents were not processed before the daemon ended"
    SOURCE = (
        "source",
        "the host in `source.address` is not known here; no documents come until it is",
    )
    KAFKA = "kafka", "Kafka reports an error; exafsd goes on trying"
    KAFKA_KEY = (
        "kafka_key",
        "a document came through Kafka without a key and was refused: without one the documents of"
        " a run would be spread over daemons; key them by the uid of their run",
    )
    KAFKA_ONE_KEY = (
        "kafka_one_key",
        "several runs have one key in Kafka, so one daemon gets all of them; use their uids",
    )
    KAFKA_DELETED = (
        "kafka_deleted",
        "Kafka has deleted documents before they were read; replay their runs from the archive",
    )
    TILED_UNREAD = (
        "tiled_unread",
        "a run of `source.tiled` ended, and a part of it could not be read; replay it when it can",
    )
    RESULTS = "results", "result runs could not be written, or not all"
    RESULTS_QUEUE_FULL = "results_queue_full", "outcomes not stored: the catalog is too slow"
    RESULTS_FAILED = "results_failed", "outcomes not stored: the catalog refuses them"
    RESULTS_PROCESS = "results_process", "outcomes not stored: the process that writes died"
    RESULTS_KAFKA = "results_kafka", "outcomes not stored: Kafka did not take them"
    RESULTS_SHUTDOWN = "results_shutdown", "outcomes not stored: the daemon ended"
    COMPARE = "compare", "a replayed run has no stored results to compare with"
    DISK = "disk", "the journal cannot be written; analysis goes on"
    OUTCOME_LOG = (
        "outcome_log",
        "outcomes cannot be logged; they are sent, but would be lost if the daemon were killed",
    )
    JOURNAL_DAMAGED = (
        "journal_damaged",
        "a file of the journal is not as it was written; what comes before the damage is used",
    )
    RESUMED = (
        "resumed",
        "a run was open while the daemon was down; what was sent meanwhile may be missing",
    )
    ORPHANS_FULL = "orphans_full", "the journal's file of stray documents is full"
    UNSERIALISABLE = "unserialisable", "the journal cannot keep a document of this content"
    MALFORMED = "malformed", "the journal cannot keep a document without its run"
    REQUEST = "request", "a request of a subscriber failed"
    REFUSED_PEER = "refused_peer", "a peer without a known key was refused"
    REPLY = "reply", "a reply was not taken by the subscriber that asked"
