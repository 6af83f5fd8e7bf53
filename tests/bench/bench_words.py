"""Whether neighbours make sense: do they share a rare word of their descriptions?

    python -m tests.bench.bench_words --data clicks.csv --items items.csv --text description

Runs the daemon over the clicks in a temporary directory, takes the ten nearest neighbours of every
item from the published version, and compares the share that has a rare word in common (one in at
most 1 % of the descriptions) with that of random pairs. The last line is one JSON object.
"""

import argparse
import csv
import gzip
import json
import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from state.versions import open_version, read_current
from streamer import config as settings
from streamer.clock import SystemClock
from streamer.daemon import Daemon
from streamer.logs import configure_logs
from streamer.serving.ranking import Options, Searchable
from streamer.settings.process import Log
from streamer.sources.opening import open_source

RARE_SHARE = 0.01
N_SHOWN_ITEMS, N_SHOWN = 5, 5


def texts_of(path: Path, column: str) -> dict[bytes, str]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as lines:
        return {row["item_id"].encode(): row[column] for row in csv.DictReader(lines)}


def rare_words(texts: dict[bytes, str]) -> dict[bytes, set[str]]:
    words = {item: set(re.findall(r"[a-z]{3,}", text.lower())) for item, text in texts.items()}
    in_items = Counter(word for of_item in words.values() for word in of_item)
    rare = {word for word, n in in_items.items() if 2 <= n <= RARE_SHARE * len(texts)}
    return {item: of_item & rare for item, of_item in words.items()}


def learned(data: Path, directory: Path) -> Searchable:
    config = settings.load(
        None,
        source={"files": {"paths": [str(data)]}},
        store={"directory": str(directory)},
        metrics={"is_enabled": False},
    )
    clock = SystemClock()
    configure_logs(Log(level="warning"))
    Daemon(config, lambda: open_source(config, clock), clock).run()
    name = read_current(config.published)
    assert name is not None
    return Searchable.of(open_version(config.published, name, "ivf"), config.serving)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--text", default="description")
    options = parser.parse_args()
    texts = texts_of(options.items, options.text)
    words = rare_words(texts)
    with tempfile.TemporaryDirectory() as directory:
        version = learned(options.data, Path(directory))
    known = [item for item in version.ids if words.get(item)]
    shared, random = [], []
    rng = np.random.default_rng(1)
    for item in known:
        near = version.neighbors(item, Options(limit=10)).ids()
        shared += [bool(words[item] & words.get(one, set())) for one in near]
        others = rng.choice(len(known), 10)
        random += [bool(words[item] & words[known[o]]) for o in others if known[o] != item]
    clicks = version.version.items.clicks
    popular = [version.ids[row] for row in np.argsort(-clicks)[: 40 * N_SHOWN_ITEMS : 40]]
    for item in popular:
        near = version.neighbors(item, Options(limit=N_SHOWN)).ids()
        print(f"{texts.get(item, item.decode())}")
        for one in near:
            print(f"    {texts.get(one, one.decode())}")
    figures = {
        "items": len(known),
        "neighbours_share_a_rare_word": round(float(np.mean(shared)), 4),
        "random_pairs_share_a_rare_word": round(float(np.mean(random)), 4),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
