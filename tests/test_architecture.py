"""The house holds: floors, ladders, doors, names and sizes, read from the source itself.

A failure here is a question about design. Answer it in the design, or change a table below and say why beside it.
"""

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.source_reader import (
    DEFINITIONS,
    FLOORS,
    MODULES,
    REPOSITORY,
    find_imports,
    is_under,
    list_functions,
)

LADDERS = {
    # From the top down. A module imports only from rungs below its own, so those that share a rung are strangers.
    "indexer": (
        {"__main__"},
        {"cli"},
        # The commands that build, learn, search, and look after a collection; the group above takes them in.
        {"cli_build", "cli_learn", "cli_search", "cli_graph"},
        {"cli_publish"},  # with the option that asks where it has published
        {"cli_upkeep"},
        {"exports"},  # answers as files to keep
        {"doctor", "texts"},  # look at what the conductors made, and say it
        {"survey", "overview"},  # what is in a collection: found, with a graph; shown, beside a collection
        # Conductors; terminal draws their progress.
        {"check", "estimate"},  # and what upkeep puts right of it; a build that is tried
        {"job", "collection", "upkeep", "marks_upkeep", "learn", "evaluate", "terminal", "graph", "engine_publish"},
        # What a reader is told, and what of the catalog it sees; an answer folded, explained; work beside the page.
        {"status", "visible", "folding", "heat", "background"},
        # What of a generation's ranking is answered; every row's nearest; one whose candidates come from elsewhere.
        {"answers", "linking", "engine_snapshot"},
        # One generation, opened; pictures to learn from; an evaluation's parts: steps introduced to each other.
        # When to walk again stands above the walk, the table of failures and marks above what they read.
        {
            *("publish", "snapshot", "pile", "gallery", "labels", "figures", "evaluation_plot", "curves", "watch"),
            *("failures", "places", "pipeline", "cluster_pipeline", "query_model"),
        },
        {"marks", "decisions", "survey_folder", "engine_rows"},
        {"words", "clustering", "marks_file", "cluster"},
        # The index that fits a store: trained, measured with rows held out and with edited copies.
        # What the nodes of a cluster do; the door to it stands above.
        {"fitting", "cluster_stages"},
        {"parts"},  # an index of many rows, made part by part
        {"index_maker", "recall", "edited", "graph_folder", "fetching", "recording", "output_shards", "originals"},
        {
            *("sources", "catalog_reader", "catalog_upkeep", "decode", "embed", "vectors", "index", "generations"),
            *("aside", "queries", "thumbnails", "edits", "metrics", "evaluation_text"),
            *("tables", "sights", "unfolding", "duplicates"),
        },
        # Pictures in a shard or behind a URL as files: found by the walk, read by who decodes. What a source is.
        {"members", "kinds"},
        # As a build writes it; as upkeep sees it stands above. What its reasons mean to a person. Several devices.
        {"catalog", "reasons", "fleet", "shards"},
        {"catalog_walk"},  # a part of the catalog's own: what a walk changes in it
        # How the three SQLite files are opened, decoding processes, what an evaluation is: below their steps.
        # And who may change a collection.
        # And object storage, Milvus, and inverted lists on the disk.
        {"schema", "workers", "evaluation", "hold", "index_gpu", "remote", "milvus", "lists"},
        {"layout", "settings", "report", "interrupts", "recipes", "filters"},
        {"web"},  # what web servers say, and hand out
        {"urls"},  # how a path is spelled that is a URL
        {"errors"},
    ),
    "seer_model": (
        {"cli"},
        {"fetch"},
        {"pretrain"},
        {"beginning"},  # which run a folder holds
        # The parts of a run are strangers to each other.
        {"backbone", "learner", "feed", "vigil", "run_folder", "board"},
        {"presets", "readout"},
        {"whitening"},  # fitted on crops as the recipe says, read by the readout
        {"swav", "crops", "orders", "poolings", "attribution"},
        {"checkpoint"},  # builds the network that a file describes
        {"download"},  # the bytes of one file from elsewhere
        {"zoo", "weight_files"},  # names and places of models; the bytes of one file
        {"key_tables"},
        # How a network is trained where memory is short, is saved by several ranks, and infers on a CPU.
        {"recompute", "sharding", "parts", "packing"},
        {"regnet", "sync_norm", "optimizer"},
        {"preprocess", "squares", "shots"},
        {"pictures"},
        {"formats", "extra_decoders"},  # what bytes are; how what Pillow does not know is read
        # Writes that a power cut does not break; processes of a run; what devices can; what embeddings are read from.
        {"durable", "ranks", "devices", "outputs"},
        {"errors"},
    ),
}

DOORS = {
    # What -> the modules that may import it.
    "faiss": {"indexer.index", "indexer.index_maker", "indexer.clustering", "indexer.index_gpu"},
    # The catalog is five modules: its tables, the sides that write, take in a walk, read, and look after it.
    "sqlite3": {
        *("indexer.schema", "indexer.catalog", "indexer.catalog_reader", "indexer.catalog_upkeep"),
        *("indexer.catalog_walk", "indexer.thumbnails", "indexer.marks", "indexer.marks_file", "indexer.marks_upkeep"),
    },
    "click": {
        *("seer_model.cli", "ui.cli", "indexer.cli", "indexer.cli_publish"),
        *("indexer.cli_build", "indexer.cli_learn", "indexer.cli_search", "indexer.cli_graph", "indexer.cli_upkeep"),
    },
    "streamlit": {"ui"},
    "torch": {"seer_model", "indexer.embed"},
    "sklearn": {"indexer.metrics"},
    "watchfiles": {"indexer.watch"},
    "fsspec": {"indexer.remote", "indexer.web"},
    "ray": {"indexer.cluster"},
    "aiohttp": {"indexer.remote"},
    "pymilvus": {"indexer.milvus"},
    "milvus_lite": {"indexer.milvus"},
    "grpc": {"indexer.milvus"},
    "openTSNE": {"indexer.unfolding"},
    "scipy": {"indexer.unfolding"},
    "matplotlib": {"indexer.evaluation_plot", "indexer.curves"},
    "pillow_heif": {"seer_model.extra_decoders"},
    "pillow_jxl": {"seer_model.extra_decoders"},
    "rawpy": {"seer_model.extra_decoders"},
    "transformers": set(),  # an oracle for tests
    "playwright": set(),
    "torchvision": set(),
    "timm": set(),
}

WITHOUT_TORCH = {
    # Decoding processes load these; half a gigabyte and seconds each.
    *("seer_model", "seer_model.errors", "seer_model.pictures", "seer_model.preprocess", "seer_model.durable"),
    *("seer_model.squares", "seer_model.shots", "seer_model.formats", "seer_model.extra_decoders"),
}
WITHOUT_TORCH_AT_THE_TOP = {
    # `seer --help` and `seer status` load these: torch only inside the function that needs it.
    *("seer_model.cli", "seer_model.zoo", "seer_model.outputs", "seer_model.download", "seer_model.fetch"),
    "indexer.embed",
}

UI_KNOWS = {
    "indexer.collection",
    "indexer.overview",  # what there is without a query
    "indexer.exports",  # answers as files to keep
    "indexer.background",  # a build or a survey in a process of its own
    "indexer.layout",  # which collection is meant when none is named
    "indexer.urls",  # how a path is spelled that is a URL
    "seer_model.errors",
    "indexer.aside",  # decodes uploads, and originals that browsers cannot show, outside of the page's process
}
UI_COMMAND_KNOWS = UI_KNOWS | {
    *("indexer.cli", "indexer.cli_build", "indexer.cli_graph", "indexer.cli_publish"),
}
"""The composed command joins the groups of the floors below."""

FORBIDDEN_MODULES = re.compile(r"(^|_)(utils?|common|helpers?|misc|shared|base)($|_)")
FORBIDDEN_CLASSES = re.compile(r"(Manager|Handler|Helper|Processor|Wrapper)$")
FORBIDDEN_WORDS = re.compile(r"(^|_)(img|imgs|item|items_list|hit|hits|dataset|knn|emb|embs|feat|feats)($|_)")

LONGEST_FILE = 400
LONGEST_MEDIAN_FUNCTION = 12


# --- floors, ladders, doors --------------------------------------------------------------------------------------


def test_imports_point_down_only():
    heights = {name: height for height, name in enumerate(FLOORS)}
    wrong = [one for one in find_imports(*FLOORS) if heights[top_of(one.name)] > heights[top_of(one.module)]]
    assert not wrong, "a lower floor looks up"


def top_of(name: str) -> str:
    return name.partition(".")[0]


def test_the_product_does_not_import_its_tests():
    assert not find_imports("tests", "conftest")


def test_every_module_stands_on_a_rung():
    for package, ladder in LADDERS.items():
        standing = {module.name.split(".")[1] for module in MODULES if module.name.startswith(package + ".")}
        assert standing <= set().union(*ladder), f"name the place of these modules of {package} in LADDERS"
        assert sum(map(len, ladder)) == len(set().union(*ladder)), "a module stands on one rung"


@pytest.mark.parametrize("package", LADDERS)
def test_a_rung_looks_down_and_those_who_share_one_are_strangers(package):
    heights = {name: height for height, rung in enumerate(reversed(LADDERS[package])) for name in rung}
    inner = [one for one in find_imports(package) if one.module.startswith(package + ".") and "." in one.name]
    wrong = [one for one in inner if heights[one.name.split(".")[1]] >= heights[one.module.split(".")[1]]]
    assert not wrong


@pytest.mark.parametrize("library", DOORS)
def test_a_library_comes_in_by_its_door(library):
    wrong = [one for one in find_imports(library) if not any(is_under(one.module, door) for door in DOORS[library])]
    assert not wrong, f"the doors of {library} are {DOORS[library]}"


def test_decoding_and_the_command_line_start_without_torch():
    found = find_imports("torch", "safetensors.torch")
    assert not [one for one in found if one.module in WITHOUT_TORCH]
    assert not [one for one in found if one.module in WITHOUT_TORCH_AT_THE_TOP and one.at_the_top]


def test_the_page_knows_the_collection_and_errors_only():
    found = [one for one in find_imports("indexer", "seer_model") if top_of(one.module) == "ui"]
    wrong = [one for one in found if one.name not in (UI_COMMAND_KNOWS if one.module == "ui.cli" else UI_KNOWS)]
    assert not wrong


def test_nobody_imports_a_page():
    pages = [module.name for module in MODULES if module.is_page]
    assert pages and not find_imports(*pages)


@pytest.mark.parametrize(
    ("start", "absent"),
    [
        ("import ui.cli", "torch faiss streamlit transformers pymilvus milvus_lite grpc"),
        ("import indexer.collection", "torch faiss streamlit click pymilvus milvus_lite grpc"),
        ("import indexer.decode", "torch faiss streamlit click sqlite3 rich"),
        ("import indexer.aside", "torch faiss streamlit click sqlite3 rich"),
        ("import indexer.pile", "torch faiss streamlit click sqlite3 rich"),
        ("import indexer.gallery", "torch faiss streamlit click sqlite3 rich sklearn matplotlib"),
        ("sys.argv = ['seer', '--help']; from ui.cli import main; main()", "torch faiss streamlit sklearn matplotlib"),
        ("sys.argv = ['seer', 'status']; from ui.cli import main; main()", "torch faiss streamlit"),
        ("sys.argv = ['seer', 'models', 'list']; from ui.cli import main; main()", "torch faiss streamlit"),
        # A second of torch's that only its compiler needs.
        ("from seer_model.backbone import open_backbone; open_backbone(device='cpu')", "torch._dynamo sympy"),
    ],
)
def test_what_must_start_fast_loads_no_heavy_library(start, absent):
    report = f"lambda: print('loaded:', *sorted(set({absent.split()}) & sys.modules.keys()))"
    # In a process of its own: what other tests have imported does not count.
    done = subprocess.run(
        [sys.executable, "-c", f"import atexit, sys\natexit.register({report})\n{start}"],
        capture_output=True, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


# --- no effect at import -----------------------------------------------------------------------------------------

HARMLESS_CALLS = {
    *("frozenset", "set", "dict", "list", "tuple", "range", "zip", "sorted", "len", "min", "max", "sum", "enumerate"),
    *("str", "int", "float", "bool", "bytes", "round", "isinstance", "next", "any", "all", "TypeVar", "ParamSpec"),
    *("namedtuple", "field", "re.compile", "logging.getLogger", "struct.Struct", "struct.calcsize", "timedelta"),
    *("Path", "PurePosixPath", "partial", "property", "itemgetter", "attrgetter", "MappingProxyType", "np.dtype"),
    *("click.option", "click.argument", "click.Choice", "click.Path", "click.IntRange", "click.FloatRange"),
    *("ContextVar", "click.File", "click.DateTime"),
    *("threading.Lock", "threading.RLock", "threading.local", "enum.auto", "auto", "groupby"),
    *("st.App", "Middleware"),  # what a server is handed: nothing runs before it starts
}
"""Calls that change nothing outside the value they return; anything in `math` is one more."""
HARMLESS_METHODS = {
    *("split", "join", "items", "keys", "values", "fromhex", "encode", "lower", "union", "append", "format"),
    *("with_name", "with_suffix"),
    "add_command",  # tells a command group of its commands
}
OUR_CLASSES = {node.name for module in MODULES for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)}
"""What the __post_init__ of a class may do is check itself."""


def list_effects(tree: ast.Module) -> list[str]:
    """The calls that run when a module is imported and are not known to be harmless.

    Not the bodies of functions that are only defined, and not decorators. A function of the module itself that is
    called to fill a table is harmless if all that it calls is.
    """
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    waiting: list[ast.AST] = [node for node in tree.body if not is_main_guard(node)]
    effects = []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [*node.args.defaults, *filter(None, node.args.kw_defaults)]
        elif isinstance(node, ast.ClassDef):
            waiting += [*node.bases, *node.body]
        elif not isinstance(node, ast.Lambda):
            if isinstance(node, ast.Call) and (own := functions.pop(ast.unparse(node.func), None)):
                waiting += own.body
            elif isinstance(node, ast.Call) and not is_harmless(node, tree):
                effects.append(f"line {node.lineno}: {ast.unparse(node)[:80]}")
            waiting += ast.iter_child_nodes(node)
    return effects


def is_main_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)


def is_harmless(call: ast.Call, tree: ast.Module) -> bool:
    name = ast.unparse(call.func)
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    known = HARMLESS_CALLS | OUR_CLASSES | own
    return name in known or name.startswith("math.") or name.rpartition(".")[2] in HARMLESS_METHODS


def test_an_import_has_no_effect():
    assert not {module.name: effects for module in DEFINITIONS if (effects := list_effects(module.tree))}


def test_the_top_of_a_module_is_definitions():
    allowed = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign
    allowed |= ast.AnnAssign | ast.AugAssign | ast.Expr
    wrong = [
        f"{module.name}:{node.lineno}"
        for module in DEFINITIONS
        for node in module.tree.body
        if not (isinstance(node, allowed) or is_main_guard(node))
        and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    assert not wrong


@pytest.mark.parametrize(
    "effect",
    [
        "open('x')",
        "print('x')",
        "Path('x').mkdir()",
        "logging.basicConfig()",
        "parser.parse_args()",
        "DEVICE = torch.device('cuda')",
        "torch.set_num_threads(1)",
        "def f(x=open('y')): pass",
        "class A:\n    x = sqlite3.connect('y')",
        "N = [read() for _ in range(3)]",
        "os.environ.setdefault('A', 'b')",
        "def _fill():\n    return open('x')\nTABLE = _fill()",
    ],
)
def test_the_test_of_effects_sees_them(effect):
    assert list_effects(ast.parse(effect))


# --- names, texts, sizes -----------------------------------------------------------------------------------------


def test_a_module_opens_with_what_it_holds():
    # An empty __init__.py below a package is a mark for Python, not a module.
    silent = [module.name for module in MODULES if module.tree.body and not ast.get_docstring(module.tree)]
    silent += [name for name in FLOORS if not any(module.name == name and module.tree.body for module in MODULES)]
    assert not silent


def test_public_names_have_docstrings():
    definitions = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    silent = [
        f"{module.name}.{node.name}"
        for module in DEFINITIONS
        for node in module.tree.body
        if isinstance(node, definitions) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not silent


def test_no_file_is_longer_than_one_sitting():
    lengths = {module.name: len(module.path.read_text(encoding="utf-8").splitlines()) for module in MODULES}
    assert not {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}


def measure_function(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, the docstring left out."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno - body[0].lineno + 1) if body else 0


def test_a_function_is_about_ten_lines():
    lengths = [measure_function(function) for module in MODULES for function in list_functions(module.tree)]
    assert statistics.median(lengths) <= LONGEST_MEDIAN_FUNCTION


def test_names_say_what_a_thing_is():
    assert not [module.name for module in MODULES if any(map(FORBIDDEN_MODULES.search, module.name.split(".")))]
    classes = [node.name for module in MODULES for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
    assert classes and not [name for name in classes if FORBIDDEN_CLASSES.search(name)]


def test_one_concept_has_one_word():
    wrong = {
        f"{module.name}: {name}"
        for module in MODULES
        for node in ast.walk(module.tree)
        for name in list_defined_names(node)
        if FORBIDDEN_WORDS.search(name.lower())
    }
    assert not wrong, "the glossary has another word for it"


def list_defined_names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id


def test_the_top_level_is_three_floors_and_their_tests():
    assert {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} == {*FLOORS, "tests"}


def test_no_exception_is_swallowed_whole():
    # One net hangs under the whole way of one file through the job: it stores the reason (design, "Errors"). The way
    # of a picture to the trainer has one of its own, and that of an upload to the page. The feed's thread and a worker
    # process hand their errors on to who asked. The library of each store has errors of its own: all are asked again.
    nets = [
        module.name
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
    ]
    known = "indexer.aside", "indexer.pile", "indexer.workers", "indexer.remote", "seer_model.feed"
    others = [net for net in nets if net not in known]
    assert others in ([], ["indexer.decode"], ["indexer.job"])
    assert nets.count("indexer.pile") <= 1 and nets.count("indexer.remote") <= 1
