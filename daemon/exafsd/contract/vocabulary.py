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
        "the arrays were longer than the sweep: their last points, NaN or zero in every column,"
        " were cut off",
    )
    ENERGY_UNSORTED = (
        "energy_unsorted",
        "the points came out of order",
        "the points were not in the order of their energies, by more than 1 eV on average; the"
        " jitter of an encoder is less",
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
        "this sweep does not show the edge of the foil; the last shift of a sweep in the same"
        " direction is applied, if there is one",
    )
    FOIL_OUTLIER = (
        "foil_outlier",
        "the foil is off its drift, not followed yet",
        "the edge of the foil is more than `calibration.jump` (and 5 standard errors) from where"
        " its drift puts it. One such sweep is not followed",
    )
    ENERGY_JUMP = (
        "energy_jump",
        "the energy scale has jumped",
        "two sweeps agree that the energy scale has jumped; from this sweep on, the new scale is"
        " used",
    )
    FOIL_LOST = (
        "foil_lost",
        "the foil is too far off to be believed",
        "the shift is more than `calibration.max_shift`; it is not applied, and the last shift"
        " remains",
    )
    REBIN_FILLED = (
        "rebin_filled",
        "some bins were filled from their neighbours",
        "up to 10 % of the bins had no point and were filled from their neighbours",
    )
    REBIN_SPARSE = (
        "rebin_sparse",
        "too few points to rebin",
        "more than 10 % of the bins had no point, or there are fewer bins than"
        " `reduction.min_points`: the spectrum was not rebinned",
    )
    DEGLITCHED = (
        "deglitched",
        "glitches were replaced",
        "single points were replaced, as `reduction.quality.deglitch` allows",
    )
    GLITCHY = (
        "glitchy",
        "too many glitches to replace",
        "more than 3 % of the points look like glitches; none was replaced",
    )
    OUTLIER = (
        "outlier",
        "unlike the sweeps before it",
        "the normalised spectrum differs from the running mean of its run by more than"
        " `reduction.quality.outlier` times the usual difference: a disturbed sweep, or the first"
        " of a change. Three similar ones count as a change, and become the new mean",
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
        "the sequence numbers show that points of the sweep are missing",
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
        "earlier sweeps were lost. Averages, calibration and whatever else depends on earlier"
        " sweeps is therefore different; a replay from the archive gives the right values",
    )
    RENUMBERED = (
        "renumbered",
        "points of the run are missing: its number may be too low",
        "the sweep was cut from a stream in which points are missing, so its number may be too"
        " low; a replay from the archive gives the right one",
    )
    DELAY_IGNORED = (
        "delay_ignored",
        "a detector delay could not be applied",
        "`adapter.delay` names a signal of the sweep, but its points have no times",
    )
    COLUMNS_DISAGREE = (
        "columns_disagree",
        "mu in the file is not that of its detectors",
        "(`exafsd analyze`) the file has mu and the detectors' readings, and they disagree: are"
        " there dark currents (`adapter.dark`), or is one of them another column? The readings are"
        " used",
    )
    I0_LIKE_MU = (
        "i0_like_mu",
        "i0 has the structure of mu: is it another column?",
        "within 150 eV of the edge, i0 of the first sweep correlates with mu by more than 0.5 and"
        " more than a fifth of its size, or by more than 0.8 and a twentieth. The intensity before"
        " the sample does not: a column of another detector was taken for i0, or the optics contain"
        " the element",
    )
    PRE_EDGE_OFF = (
        "pre_edge_off",
        "the pre-edge line does not meet the edge: N·S0² may be wrong",
        "between 60 and 25 eV below E0, mu is on average more than 5 % of the edge step away from"
        " the pre-edge line: there is an edge of another element in the pre-edge range, or the"
        " background is curved. Set `reduction.pre_edge.pre1`. R does not depend on this",
    )
    WRONG_ELEMENT = (
        "wrong_element",
        "the edge is not where this element has it",
        "E0 is more than 30 eV from the tabulated edge; parameters are withheld",
    )
    EDGE_MOVED = (
        "edge_moved",
        "the edge is not where this material has it: check the energy scale",
        "E0 is more than 8 eV from that of the model's material: the monochromator is not"
        " calibrated, or the absorber has another oxidation state. R and σ² do not depend on this",
    )
    EDGE_SHAPE = (
        "edge_shape",
        "another near edge than this material alone: another phase beside it?",
        "the near edge differs from [measured spectra](../explanation/trust.md#the-near-edge) of"
        " the model's material: a second phase, another structure, over-absorption, or"
        " nanoparticles. Differences of edge step, pre-edge line, energy scale, resolution and"
        " temperature do not count",
    )
    E0_OFF = (
        "e0_off",
        "E0 is not where this material has it: another phase beside it?",
        "E0 of the fit is in the wrong place on the edge, more than 2 eV (and its error bar) above"
        " or below the place where reference spectra of the model's material have it: R may be"
        " wrong by 0.01 Å or more. Above 4 eV the parameters are withheld",
    )
    OFF_CRYSTAL = (
        "off_crystal",
        "a fit has R, N or E0 unusual for its crystal: is it this material?",
        "the model has no network, and its fit gives unusual values: R of the nearest shell"
        " differs by more than 0.03 Å from the crystal; or its change from the crystal differs by"
        " more than 1.2 % from that of farther shells; or N·S0² divided by N of the crystal is"
        " outside 0.65 to 1.2; or E0 differs by more than 8.5 eV from its usual value. Fits with a"
        " wrong structure often look like this",
    )
    NOISY_END = (
        "noisy_end",
        "mostly noise at high k; read without it",
        "beyond some k (10 Å⁻¹ or more) there is more noise than signal, and only the part below"
        " fits the model. The network used only this part; the polish uses all data",
    )
    POOR_FIT = (
        "poor_fit",
        "fits worse than reference spectra: another phase beside it?",
        "the spectrum fits worse than the [measured"
        " spectra](../explanation/trust.md#the-trust-score) of the model's material, or, if there"
        " are none, worse than nearly all simulated spectra. The cause may be a second phase (a"
        " third of the sample is enough), or disorder",
    )
    OTHER_PHASES = (
        "other_phases",
        "a part of the sample is another phase",
        "the parameters are those of a single phase, but there is another one: the linear"
        " combination finds more than 3 % of other phases (and more than 3 standard deviations); or"
        " the near edge differs from that of the phase; or, for a model without a network, the"
        " EXAFS of another model of the edge explains 60 % of the misfit",
    )
    FLUORESCENCE_AMPLITUDE = (
        "fluorescence_amplitude",
        "the amplitude is a lower limit (self-absorption)",
        "the spectrum was measured in fluorescence, and nobody has"
        " [declared](../howto/coordination.md) that the sample is dilute or the data are"
        " corrected: N·S0² is a lower limit, and N is withheld",
    )
    SHORT_K_RANGE = (
        "short_k_range",
        "the scan ends too early in k",
        "the data end below `reduction.k_max_min`; parameters are withheld",
    )
    REFERENCE_TEMPERATURE = (
        "reference_temperature",
        "a reference in it was measured at another temperature",
        "the temperature of a [reference](../howto/composition.md) with a share of 0.05 or more"
        " differs by more than 100 K from that of the sample (by the file of the reference and"
        " `context` of the sweep). The fit allows for temperature, but the shares may be wrong",
    )


#: flags that say that the parameters may be wrong, and not only less sure than usual
DOUBTS = frozenset({
    Flag.POOR_FIT, Flag.EDGE_SHAPE, Flag.EDGE_MOVED, Flag.E0_OFF, Flag.OFF_CRYSTAL, Flag.OUTLIER,
    Flag.GLITCHY, Flag.REMEASURED, Flag.OTHER_PHASES, Flag.COLUMNS_DISAGREE,
    Flag.I0_LIKE_MU, Flag.PRE_EDGE_OFF,
})  # fmt: skip


class Reason(Code):
    """Why a sweep, channel and edge gave no result (`rejected.reason`)."""

    MISSING_COLUMN = (
        "missing_column",
        "energy or a detector is not in the documents under the names of `[adapter]`",
    )
    NOT_NUMBERS = "not_numbers", "a column is not an array of numbers"
    SHAPE_MISMATCH = "shape_mismatch", "a column has another length than the energy"
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
        "the reference channel shows no edge: is there a foil in the beam? Reported once per run",
    )
    LARCH_FAILED = "larch_failed", "Larch could not reduce the spectrum; `detail` has its message"
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
        "(`exafsd analyze`) the file is missing, or is not a table of numbers",
    )
    AMBIGUOUS_COLUMNS = (
        "ambiguous_columns",
        "(`exafsd analyze`) the names and the columns of a file do not match, or a name comes"
        " twice: it is not clear which name belongs to which column",
    )
    INTERNAL = (
        "internal",
        "an error in exafsd; please report it. The next spectrum is analysed",
    )


class Problem(Code):
    """Trouble with documents, files or peers (`status.problems`, `status.drops`)."""

    BAD_FRAME = "bad_frame", "a ZeroMQ frame is not a document"
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
    REPEATED_START = "repeated_start", "a run has two start documents; the second one is ignored"
    REPEATED = "repeated", "events came twice; the second ones are skipped"
    GAP = "gap", "events are missing; replay the run from the archive"
    BACKFILLED = "backfilled", "missed documents were fetched from `backfill.catalog`"
    UNFILLED = "unfilled", "missed documents could not be fetched from `backfill.catalog` in time"
    LOST_STOP = "lost_stop", "a run never ended; it was closed"
    NO_SPECTRUM = "no_spectrum", "a run has no XAFS scan under the names of `[adapter]`"
    BAD_SETTINGS = (
        "bad_settings",
        '`start["exafsd"]`, `adapter.dark` or `adapter.gain` ask for something that does not'
        " exist: every sweep of the run is rejected",
    )
    ENERGY_UNIT = (
        "energy_unit",
        "the energies of a stream cannot be turned into eV: its sweeps are rejected",
    )
    ASSET_REFUSED = "asset_refused", "an external file is outside `source.asset_roots`"
    ASSET_READER = (
        "asset_reader",
        "the process that reads external files did not answer and was restarted; the file that it"
        " was reading is not tried again for a while",
    )
    AUDIT = (
        "audit",
        "exafsd's reduction of a spectrum differs from Larch's, or agrees with it again, or Larch"
        " could not be asked",
    )
    INTERNAL = "internal", "an error in exafsd; please report it. The daemon continues"
    INBOX_FULL = "inbox_full", "documents were lost because the queue was full"
    SHUTDOWN = "shutdown", "documents were not processed before the daemon ended"
    SOURCE = (
        "source",
        "the host name in `source.address` cannot be resolved; no documents arrive until it can",
    )
    KAFKA = "kafka", "Kafka reports an error; exafsd keeps trying"
    KAFKA_KEY = (
        "kafka_key",
        "a document came through Kafka without a key and was refused, because documents of one"
        " run could then go to several daemons. Use the uid of the run as the key",
    )
    KAFKA_ONE_KEY = (
        "kafka_one_key",
        "several runs have the same key in Kafka, so one daemon gets all of them. Use the uid of"
        " the run as the key",
    )
    KAFKA_DELETED = (
        "kafka_deleted",
        "Kafka deleted documents before they were read; replay their runs from the archive",
    )
    TILED_UNREAD = (
        "tiled_unread",
        "a run of `source.tiled` ended, and a part of it could not be read; replay the run when"
        " the server works again",
    )
    RESULTS = "results", "some result runs could not be written, or are not complete"
    RESULTS_QUEUE_FULL = "results_queue_full", "outcomes not stored: the catalog is too slow"
    RESULTS_FAILED = "results_failed", "outcomes not stored: the catalog refuses them"
    RESULTS_PROCESS = "results_process", "outcomes not stored: the process that writes them died"
    RESULTS_KAFKA = "results_kafka", "outcomes not stored: Kafka did not accept them"
    RESULTS_SHUTDOWN = "results_shutdown", "outcomes not stored: the daemon ended"
    COMPARE = "compare", "a replayed run has no stored results to compare with"
    DISK = "disk", "the journal cannot be written; the analysis continues"
    OUTCOME_LOG = (
        "outcome_log",
        "outcomes cannot be logged: they are published, but a subscriber that misses one cannot"
        " request it after a restart",
    )
    JOURNAL_DAMAGED = (
        "journal_damaged",
        "a file of the journal is damaged; what was written before the damage is used",
    )
    RESUMED = (
        "resumed",
        "a run was open while the daemon was down; documents that were sent in the meantime may"
        " be missing",
    )
    ORPHANS_FULL = "orphans_full", "the journal's file for documents of unknown runs is full"
    UNSERIALISABLE = "unserialisable", "a document has content that the journal cannot store"
    MALFORMED = (
        "malformed",
        "a document does not say to which run it belongs, so the journal cannot store it",
    )
    REQUEST = "request", "a request of a subscriber failed"
    REFUSED_PEER = "refused_peer", "a client without an accepted key was refused"
    REPLY = "reply", "a subscriber did not take the reply to its request"
