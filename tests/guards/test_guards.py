"""The rules of the house hold over the tree, and each is shown to catch what it forbids."""

import importlib

import pytest

from tests.guards import imports, places, shapes, words
from tests.guards.tree import ROOT, Module, modules, texts

MODULE_RULES = (*imports.RULES, *places.RULES, *shapes.RULES, *words.MODULE_RULES)
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
# Cut in two, so that these lines are no violations themselves.
LATER, NOQA = "TO" + "DO", "# no" + "qa"
WORK, SHARED, INDEX = "/wo" + "rk/x", "../sh" + "ared/x", "py" + "pi.org"

PLANTED = [
    (imports.one_way, "kernels/a.py", "import state.offsets"),
    (imports.one_way, "kernels/a.py", "import os"),
    (imports.one_way, "kernels/a.py", "from typing import Any"),
    (imports.one_way, "state/a.py", "from streamer.clock import Clock"),
    (imports.way_of_a_click, "streamer/sources/a.py", "from streamer.windows import sessions"),
    (imports.way_of_a_click, "streamer/sources/a.py", "import streamer.pipeline"),
    (imports.way_of_a_click, "streamer/windows/a.py", "from streamer.training.trainer import T"),
    (imports.way_of_a_click, "streamer/training/a.py", "from streamer import serving"),
    (imports.way_of_a_click, "streamer/serving/app.py", "from streamer.publishing import frames"),
    (imports.way_of_a_click, "streamer/serving/app.py", "import streamer.sources.clicks"),
    (imports.way_of_a_click, "streamer/config.py", "from streamer.sources import clicks"),
    (imports.way_of_a_click, "streamer/pipeline.py", "from streamer.daemon import Daemon"),
    (imports.way_of_a_click, "streamer/daemon.py", "from streamer import cli"),
    (imports.way_of_a_click, "streamer/novel/a.py", "from streamer import config"),
    (imports.absolute_and_at_the_top, "state/a.py", "from . import offsets"),
    (imports.absolute_and_at_the_top, "state/a.py", "def f():\n    import json"),
    (imports.absolute_and_at_the_top, "state/a.py", "from typing import TYPE_CHECKING"),
    (imports.absolute_and_at_the_top, "state/a.py", "import typing\nif typing.TYPE_CHECKING: 1"),
    (places.time_in_the_clock, "streamer/daemon.py", "import time"),
    (places.time_in_the_clock, "state/a.py", "from time import monotonic"),
    (places.time_in_the_clock, "state/a.py", "from datetime import datetime\ndatetime.now()"),
    (places.time_in_the_clock, "state/a.py", "import datetime\ndatetime.date.today()"),
    (places.environment_in_config, "streamer/cli.py", "import os\nos.environ['A']"),
    (places.environment_in_config, "streamer/cli.py", "import os\nos.getenv('A')"),
    (places.environment_in_config, "streamer/cli.py", "from os import environ"),
    (places.files_in_durable, "state/manifest.py", "open('a', 'w')"),
    (places.files_in_durable, "state/manifest.py", "open('a', mode='ab')"),
    (places.files_in_durable, "state/manifest.py", "path.open('r+b')"),
    (places.files_in_durable, "state/manifest.py", "path.write_text('a')"),
    (places.files_in_durable, "state/manifest.py", "path.replace(other)"),
    (places.files_in_durable, "state/manifest.py", "path.unlink()"),
    (places.files_in_durable, "state/manifest.py", "import os\nos.replace('a', 'b')"),
    (places.files_in_durable, "state/manifest.py", "import os\nos.rename('a', 'b')"),
    (places.files_in_durable, "state/manifest.py", "import os\nos.fsync(3)"),
    (places.files_in_durable, "state/manifest.py", "import os\nos.open('a', os.O_CREAT | 1)"),
    (places.files_in_durable, "state/manifest.py", "from os import replace"),
    (places.files_in_durable, "state/index.py", "import shutil"),
    (places.files_in_durable, "state/index.py", "import faiss\nfaiss.write_index(i, 'a')"),
    (places.compilation_in_policy, "kernels/a.py", "from numba import njit"),
    (places.compilation_in_policy, "kernels/a.py", "import numba\n@numba.jit\ndef f(): pass"),
    (places.compilation_in_policy, "kernels/a.py", "@kernel('f4(f4)', fastmath=True)\ndef f(x): 1"),
    (places.compilation_in_policy, "state/a.py", "wrap(f, fastmath=False)"),
    (places.compilation_in_policy, "kernels/a.py", "@kernel('f4(f4)', cache=False)\ndef f(x): 1"),
    (places.catching_all, "streamer/a.py", "try: 1\nexcept Exception: 2"),
    (places.catching_all, "streamer/a.py", "try: 1\nexcept (OSError, BaseException): 2"),
    (places.catching_all, "streamer/a.py", "try: 1\nexcept: 2"),
    (places.catching_all, "streamer/a.py", "try: 1\nexcept Exception as e: raise X from e"),
    (places.seeded_dice, "streamer/a.py", "import random"),
    (places.seeded_dice, "state/a.py", "from secrets import token_hex"),
    (places.seeded_dice, "state/a.py", "import os\nos.urandom(4)"),
    (places.seeded_dice, "state/a.py", "import numpy as np\nnp.random.default_rng()"),
    (places.seeded_dice, "state/a.py", "import numpy as np\nnp.random.default_rng(None)"),
    (places.seeded_dice, "state/a.py", "import numpy as np\nnp.random.shuffle(a)"),
    (places.seeded_dice, "kernels/a.py", "import numpy as np\nnp.random.default_rng(1)"),
    (shapes.small, "state/a.py", "x = 1\n" * 401),
    (shapes.small, "state/a.py", "def f():\n    '''Say.'''\n" + "    x = 1\n" * 61),
    (shapes.small, "state/a.py", "def f(a, b, c, d, e, *, f, g, h, i): 1"),
    (shapes.telling_names, "state/file_utils.py", ""),
    (shapes.telling_names, "state/helpers/a.py", ""),
    (shapes.telling_names, "state/a.py", "class HTTPHandler: 1"),
    (shapes.telling_names, "state/a.py", "class StateManager: 1"),
    (shapes.telling_names, "state/a.py", "def process_clicks(): 1"),
    (shapes.metrics_in_one_place, "streamer/daemon.py", "from prometheus_client import Gauge\n"
     "Gauge('livevec_a', 'b')"),
    (shapes.metrics_in_one_place, "streamer/metrics.py", "import prometheus_client\n"
     "prometheus_client.Counter('clicks', 'b')"),
    (words.plans, "state/a.py", f"# {LATER}: later"),
    (words.plans, "tests/a.py", f"x = 1  # {LATER}(me) later"),
    (words.reasons, "state/a.py", f"import a  {NOQA}"),
    (words.reasons, "state/a.py", f"import a  {NOQA}: F401"),
    (words.reasons, "state/a.py", f"import a  {NOQA} because it is so"),
    (words.machine_paths, "README.md", f"cd {WORK}"),
    (words.machine_paths, "Makefile", f"DATA = {SHARED}"),
    (words.registries, "Makefile", f"pip install -i https://{INDEX}/simple x"),
]  # fmt: skip

ALLOWED = [
    (imports.one_way, "kernels/policy.py", "import hashlib"),
    (imports.one_way, "kernels/a.py", "from typing import NamedTuple\nfrom kernels.rng import mix"),
    (imports.one_way, "streamer/a.py", "import os\nfrom state import offsets\nimport kernels.rng"),
    (imports.way_of_a_click, "streamer/training/a.py", "from streamer.sources.clicks import C"),
    (imports.way_of_a_click, "streamer/sources/a.py", "from streamer.sources import clicks"),
    (imports.way_of_a_click, "streamer/serving/app.py", "from streamer.serving import searcher"),
    (imports.way_of_a_click, "streamer/serving/app.py", "from streamer import config, metrics"),
    (imports.way_of_a_click, "streamer/cli.py", "from streamer.serving.app import App"),
    (places.time_in_the_clock, "streamer/clock.py", "import time"),
    (places.time_in_the_clock, "state/a.py", "clock.now_ms()"),
    (places.environment_in_config, "streamer/config.py", "import os\nos.environ"),
    (places.files_in_durable, "state/durable.py", "import os\nos.fsync(3)"),
    (places.files_in_durable, "state/a.py", "open('a')\nopen('a', 'rb')\n'a'.replace('b', 'c')"),
    (places.files_in_durable, "state/a.py", "faiss.write_index(index, writer)"),
    (places.compilation_in_policy, "kernels/a.py", "@kernel('i8()', fastmath=False)\ndef f(): 1"),
    (places.catching_all, "streamer/daemon.py", "try: 1\nexcept Exception: 2"),
    (places.catching_all, "state/a.py", "def close():\n  try: 1\n  except Exception: 2"),
    (places.catching_all, "state/a.py", "try: 1\nexcept BaseException:\n    tidy()\n    raise"),
    (places.seeded_dice, "state/a.py", "import numpy as np\nnp.random.default_rng(seed)"),
    (shapes.small, "state/a.py", "def f(self, a, b, c, d, e, f, g, h): 1"),
    (shapes.telling_names, "state/a.py", "class Processed: 1\ndef process(): 1"),
    (shapes.metrics_in_one_place, "state/a.py", "from collections import Counter\nCounter('a')"),
    (words.plans, "state/a.py", f"# {LATER}(#12): later"),
    (words.reasons, "state/a.py", f"import a  {NOQA}: F401 - its import registers it"),
    (words.machine_paths, "README.md", "see deploy/work/x and https://example.org/work"),
]  # fmt: skip

KERNEL = '''
@kernel("i8(f4[:, ::1], i8[::1], u8)")
def count(rows, items, key):
    """Count.

    Parameters
    ----------
    rows : float32 (n, 2 * (dim + 1)), read
    items : int64 (n,), written
    key : uint64

    Returns
    -------
    int64, how many
    """
    return 0
'''
RECORD = '''
class Rows(NamedTuple):
    keys: np.ndarray  # uint64 (n,), of items
    seed: np.uint64


@kernel(types.void(ROWS))
def fill(rows):
    """Fill.

    Parameters
    ----------
    rows : Rows of arrays (n, ...), written
    """
'''
FLAWS = [
    (KERNEL, "items : int64 (n,), written\n    ", ""),
    (KERNEL, "rows : float32", "row : float32"),
    (KERNEL, "rows : float32", "rows : float64"),
    (KERNEL, "rows : float32", "rows : floats"),
    (KERNEL, "items : int64 (n,)", "items : int64 (n, 2)"),
    (KERNEL, "items : int64 (n,)", "items : int64"),
    (KERNEL, "key : uint64", "key : uint64 (n,)"),
    (KERNEL, ", u8)", ")"),
    (KERNEL, ", u8)", ", u8, u8)"),
    (KERNEL, "Returns\n    -------\n", ""),
    (KERNEL, "Parameters\n    ----------", "Arguments"),
    (RECORD, "types.void(", "types.int64("),
    (RECORD, "void(ROWS)", "void(ROWS, ROWS)"),
    (RECORD, "rows : Rows", "rows : Columns"),
]

MAP = """
**kernels/** - arrays.

| file | its one sentence |
| --- | --- |
| `a.py` | One `thing`; and another. |

**streamer/** - the stream.

| `sources/b.py` | The source. |
| `clock.py`, `errors.py` | The clock; the tree of errors. |

**deploy/** - not code: `c.py`.
"""


def faults(rule, path, text):
    return list(rule(Module(path, text)))


@pytest.mark.parametrize("rule", MODULE_RULES, ids=lambda rule: rule.__name__)
def test_the_packages_keep_the_rule(rule):
    found = [fault for module in modules() for fault in rule(module)]

    assert not found, "\n".join(found)


@pytest.mark.parametrize("rule", words.TEXT_RULES, ids=lambda rule: rule.__name__)
def test_every_text_keeps_the_rule(rule):
    found = [fault for text in texts() for fault in rule(text)]

    assert not found, "\n".join(found)


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_violation_is_caught(rule, path, text):
    assert faults(rule, path, text)


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_what_is_allowed_passes(rule, path, text):
    assert faults(rule, path, text) == []


def test_every_rule_has_a_planted_violation():
    documented = set(words.MODULE_RULES)

    assert {*MODULE_RULES, *words.TEXT_RULES} - documented == {rule for rule, _, _ in PLANTED}


@pytest.mark.parametrize("text", [KERNEL, RECORD])
def test_a_kernel_that_is_documented_passes(text):
    assert faults(words.documented_kernels, "kernels/a.py", text) == []
    assert faults(words.documented_records, "kernels/a.py", text) == []


@pytest.mark.parametrize(("text", "old", "new"), FLAWS)
def test_a_kernel_whose_docstring_disagrees_is_caught(text, old, new):
    assert old in text
    assert faults(words.documented_kernels, "kernels/a.py", text.replace(old, new))


@pytest.mark.parametrize("new", ["", "# keys of items", "# uint64", "# words (n,)"])
def test_an_array_in_a_record_without_dtype_and_shape_is_caught(new):
    text = RECORD.replace("# uint64 (n,), of items", new)

    assert faults(words.documented_records, "kernels/a.py", text)


def test_the_tree_is_read():
    found = {module.path for module in modules()}

    assert {"kernels/policy.py", "state/durable.py", "streamer/clock.py"} <= found
    assert {"pyproject.toml", "tests/guards/test_guards.py"} <= {text.path for text in texts()}


def test_every_module_opens_with_the_sentence_of_the_module_map():
    # Without the page there is no map, and a distribution of the packages alone has none.
    page = ARCHITECTURE.read_text()
    found = [fault for module in modules() for fault in words.opens_as_mapped(module, page)]

    assert len(words.module_map(page)) > 20
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "docstring"),
    [
        ("kernels/a.py", "One `thing`; and another.\n\nMore."),
        ("streamer/sources/b.py", "The\nsource. It is good."),
        ("streamer/clock.py", "The clock: where time enters."),
        ("streamer/errors.py", "The tree of errors.\n\nA tree"),
        ("streamer/__init__.py", "Anything."),
    ],
)
def test_a_module_with_its_sentence_passes(path, docstring):
    assert list(words.opens_as_mapped(Module(path, f'"""{docstring}"""'), MAP)) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("kernels/a.py", '"""One thing; and another."""'),
        ("kernels/a.py", "x = 1"),
        ("kernels/new.py", '"""Something new."""'),
        ("kernels/c.py", '"""Not code."""'),
        ("streamer/b.py", '"""The source."""'),
        ("streamer/clock.py", '"""What time it is."""'),
    ],
)
def test_a_module_without_its_sentence_is_caught(path, text):
    assert list(words.opens_as_mapped(Module(path, text), MAP))


@pytest.mark.parametrize(
    "name", [module.dotted for module in modules() if not module.path.endswith("__main__.py")]
)
def test_every_module_can_be_imported_by_itself(name):
    assert importlib.import_module(name).__doc__
