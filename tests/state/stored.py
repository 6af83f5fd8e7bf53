"""What the sections of a generation say of each item, wherever its row is."""

from state.store import shard_name
from state.vocabulary import Vocabulary

LEARNED = (
    "inputs",
    "outputs",
    "input_accumulators",
    "output_accumulators",
    "clicks",
    "popularity",
)


def by_id(sections):
    """Return every item's values as bytes, bit for bit, and the noise table as ids."""
    values = sections["store"].values
    per_shard = Vocabulary(values["max_items"], values["n_shards"]).rows_per_shard
    found, ids_of_rows = {}, {}
    for shard in range(values["n_shards"]):
        arrays = sections[shard_name(shard)].arrays
        ends = arrays["id_ends"].tolist()
        for row, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
            one = arrays["id_bytes"][start:end].tobytes()
            ids_of_rows[shard * per_shard + row] = one
            found[one] = [arrays[name][row].tobytes() for name in LEARNED]
    noise = [ids_of_rows[row] for row in sections["noise"].arrays["entries"].tolist()]
    return found, noise
