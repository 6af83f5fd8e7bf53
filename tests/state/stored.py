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
    "follower_weights",
    "follower_times",
    "held_by",
    "n_held_by",
)


def by_id(sections):
    """Return every item's values as bytes, bit for bit; noise, followers and sessions as ids."""
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
    for shard in range(values["n_shards"]):
        for row, followers in enumerate(sections[shard_name(shard)].arrays["followers"].tolist()):
            ids = [ids_of_rows.get(one) for one in followers]
            found[ids_of_rows[shard * per_shard + row]].append(ids)
    noise = [ids_of_rows[row] for row in sections["noise"].arrays["entries"].tolist()]
    recent = sections["recent_sessions"].arrays
    sessions = {
        number: [ids_of_rows[row] for row in rows[:size]]
        for number, rows, size in zip(
            *(recent[f"session_{what}"].tolist() for what in ("numbers", "items", "sizes")),
            strict=True,
        )
    }
    return found, noise, sessions
