"""The shape of the code, held by reading its syntax trees.

Every rule is a function from a module to its faults, and is shown a module that breaks it: a rule
that cannot fail is none.
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAYER = ROOT / "layers" / "kyora"
DOMAINS = ("assets", "billing", "businesses", "email", "accounting", "analytics")
TENANTS = ("asset", "storage_usage", "app_user", "business", "idempotency_key", "workspace_billing")
TENANTS += ("variant_set", "asset_variant")
TENANTS += ("payment_method_fee", "order_payment", "transaction_fee")
TENANTS += ("analytics_event", "analytics_count", "analytics_day")

# ---- what is allowed although a rule says no, and why

ENVIRONMENT = {
    "kyora.config": "the one place that reads our own configuration",
    "kyora.aws": "AWS's own variables: credentials, region, endpoint",
    "kyora.storage.s3": "AWS_ENDPOINT_URL, as the SDK reads it",
}
CLIENTS = {
    "kyora.postgres.connection": {"pg8000", "socket"},  # to close one without a goodbye
    "kyora.storage.s3": {"boto3", "botocore"},
    "kyora.storage.bucket": {"botocore"},  # the errors of the client that it is given
    "kyora.aws": {"botocore"},
    "kyora.otlp": {"http.client"},  # the type of the connection that it keeps
    "kyora.timed_http": {"http.client", "socket"},  # the one HTTP client, and its clock
    "kyora.cloudformation": {"urllib.request"},  # its answer to the stack
    "kyora.assets.variants.child": {"subprocess"},  # decoders run in a process of their own
    "kyora.email.resend_http": {"resend", "http.client"},  # the one module that speaks to Resend
    "kyora.cache.memcached": {"pymemcache", "socket"},  # its protocol, and the clock on its socket
    # The one module that speaks to Stripe, and the session of the SDK's HTTP client.
    "kyora.billing.stripe_client": {"stripe", "requests"},
}
STATE = {
    ("kyora.config", "_cached"): "settings, at most five minutes old",
    ("kyora.aws", "_connections"): "one connection per endpoint",
    ("kyora.jwks", "_sets"): "the issuer's keys, at most an hour old",
    ("kyora.postgres.connection", "_kept"): "the one connection",
    ("kyora.postgres.connection", "_running"): "the transaction on it, to refuse a second",
    ("kyora.trace", "_pending"): "spans that this invocation has not sent yet",
    ("kyora.otlp", "_connections"): "one connection to the collector",
    ("kyora.otlp", "_paused_until"): "a collector that failed, to be left alone",
    ("kyora.storage.s3", "_clients"): "one client per store",
    ("kyora.billing.stripe_client", "_clients"): "one client, for the key in force",
    ("kyora.email.resend_http", "_connections"): "one connection to Resend",
    ("kyora.email.resend", "_paused_until"): "its rate limit, from the last answer",
    ("kyora.cache.memcached", "_clients"): "one connection per Memcached server",
    ("kyora.cache.circuit", "_open_until"): "who failed a moment ago, to be left alone",
    ("kyora.cache.memory", "_entries"): "the provider `memory` itself, bounded",
}
LOGIC_IN_PACKAGES = {
    "kyora": "the version",
    "kyora.cache": "the names that its users import",
    "kyora.postgres": "the names that its users import",
}
CACHED = {
    ("kyora.observability", "logger"): "one logger per process",
    ("kyora.aws", "_refreshing"): "the credentials object, which refreshes its keys",
    ("kyora.postgres.connection", "_parsing"): "statements are constants",
    ("kyora.tls", "context"): "a file of authorities is read once",
    ("kyora.tls", "_rds_context"): "the same, for RDS",
}
EVERY_TENANT = {
    ("kyora.assets.sweep", "sweep"): "expires and cleans the uploads of all workspaces",
    ("kyora.assets.scan", "end_overdue"): "ends the uploads of all workspaces that got no verdict",
    ("kyora.assets.retention", "forget"): "what is past its time, in every workspace",
    ("kyora.assets.variants.rebuild", "_opt_in"): "a rebuild by hand names an asset alone",
    ("kyora.analytics.rebuild", "_businesses"): "a rebuild by hand is for all businesses",
    ("kyora.idempotency", "forget"): "what is past its time, in every workspace",
    ("kyora.history", "_find"): "whose an id is shows only once it is found; an operator asks",
    ("kyora.status", "read"): "how many uploads are late, in every workspace: only a number",
    ("kyora.billing.plans.sync", "_spread"): "a plan's limits are those of every workspace on it",
}
WRITES_ACCOUNTS = {"kyora.smoke": "a workspace of its own, as the owner, for `make smoke`"}
FILES_AS_SQL = {"kyora.postgres.migrate": "runs migration files"}
CLOCK = "kyora.clock"  # the one module that reads the machine's clock


@dataclass(eq=False)
class Module:
    """A file of ours, by its import name; `package` for an `__init__`."""

    name: str
    source: str
    package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        return list(ast.walk(self.tree))

    @property
    def domain(self) -> str:
        part = self.name.split(".")[1] if self.name.count(".") else ""
        return part if part in DOMAINS else ""

    @cached_property
    def imports(self) -> set[str]:
        """Every module named by an import, wherever it stands; types alone do not count."""
        found: set[str] = set()
        waiting: list[ast.AST] = [self.tree]
        while waiting:  # through statements alone: no expression imports
            node = waiting.pop()
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "imports are absolute"
                found.add(str(node.module))
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                waiting += node.orelse
            else:
                for block in ("body", "orelse", "finalbody", "handlers", "cases"):
                    waiting += getattr(node, block, [])
        return found

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        """Module-level names in capitals, with what they stand for."""
        found: dict[str, ast.expr] = {}
        for node in self.tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(node, ast.AnnAssign):
                target = node.target
            value = getattr(node, "value", None)
            if isinstance(target, ast.Name) and target.id.isupper() and value is not None:
                found[target.id] = value
        return found


def module_of(path: Path) -> Module:
    parts = path.relative_to(LAYER).with_suffix("").parts
    name = ".".join(parts).removesuffix(".__init__")
    return Module(name, path.read_text(), package=path.name == "__init__.py")


OURS = [module_of(path) for path in sorted((LAYER / "kyora").rglob("*.py"))]
FUNCTIONS = {
    path.parent.name: path.read_text() for path in sorted((ROOT / "functions").glob("*/app.py"))
}


# ---- who may import whom


def wrong_arrows(module: Module) -> Iterator[str]:
    """Functions import domains, domains import infrastructure, nothing points back."""
    for name in sorted(module.imports):
        if name.startswith(("functions", "local", "tests", "bench")):
            yield f"{name} is not part of the layer"
        if not name.startswith("kyora."):
            continue
        target = name.split(".")[1]
        if target in DOMAINS and not module.domain:
            yield f"infrastructure imports the domain {target}"
        if target in DOMAINS and module.domain and target != module.domain:
            yield f"{module.domain} imports {target}: domains talk over the bus"
        if target == "http" and module.domain:
            yield "a domain does not know that it is served over HTTP"


# Billing's rooms, each with those that it may import from; the files at its top know no room.
ROOMS: dict[str, set[str]] = {
    "mirror": set(),
    "plans": set(),
    "events": {"mirror", "plans"},
    "api": {"events", "mirror", "plans"},
    "jobs": {"events", "mirror", "plans"},
}


def upward_arrows(module: Module) -> Iterator[str]:
    """A room of billing imports from the rooms below it only."""
    if not module.name.startswith("kyora.billing."):
        return
    room = module.name.split(".")[2]
    for name in sorted(module.imports):
        target = name.removeprefix("kyora.billing.").split(".")[0]
        if not name.startswith("kyora.billing.") or target not in ROOMS:
            continue
        if target != room and target not in ROOMS.get(room, set()):
            yield f"{name} is not below {room}"


def logic_in_a_package(module: Module) -> Iterator[str]:
    """A package's `__init__` is its map, in prose: code is in files named by what they do."""
    if not module.package or module.name in LOGIC_IN_PACKAGES:
        return
    if ast.get_docstring(module.tree) is None:
        yield "has no docstring"
    for node in module.tree.body[1:]:
        yield f"line {node.lineno}: {ast.unparse(node).splitlines()[0]}"


LIBRARIES = ("boto3", "botocore", "pg8000", "stripe", "resend", "requests", "httpx", "aiohttp")
LIBRARIES += ("pymemcache",)
LIBRARIES += ("urllib3", "urllib.request", "http.client", "socket", "smtplib", "subprocess")


def foreign_clients(module: Module) -> Iterator[str]:
    """Each library that talks to the outside is known to one module."""
    for name in sorted(module.imports):
        library = next((lib for lib in LIBRARIES if f"{name}.".startswith(f"{lib}.")), None)
        if library and library not in CLIENTS.get(module.name, set()):
            yield f"imports {library}"


def reads_environment(module: Module) -> Iterator[str]:
    if module.name in ENVIRONMENT:
        return
    for node in module.nodes:
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
            yield f"line {node.lineno} reads the environment"
    for name in ("os.environ", "os.getenv"):
        if name in module.imports:
            yield f"imports {name}"


# ---- state


def _mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    if isinstance(value, ast.Call):
        called = value.func.value if isinstance(value.func, ast.Subscript) else value.func
        names = ("list", "dict", "set", "defaultdict", "deque", "Counter", "bytearray", "count")
        return isinstance(called, ast.Name) and called.id in names
    return False


CHANGES = ("append", "extend", "add", "update", "pop", "popitem", "clear", "setdefault", "insert")


def hidden_state(module: Module) -> Iterator[str]:
    """What one invocation leaves behind for the next is a short list."""
    for node in module.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        for target in targets:
            if (
                isinstance(target, ast.Name)
                and not target.id.isupper()
                and target.id != "__all__"
                and _mutable(getattr(node, "value", None))
                and (module.name, target.id) not in STATE
            ):
                yield f"{target.id} is module-level state"
    for node in module.nodes:
        if isinstance(node, ast.Global):
            yield f"line {node.lineno}: global {', '.join(node.names)}"
        changed = None
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            changed = node.func.value if node.func.attr in CHANGES else None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            changed = node.value
        if isinstance(changed, ast.Name) and changed.id.isupper():
            yield f"line {node.lineno}: the constant {changed.id} is changed"
        if isinstance(node, ast.FunctionDef):
            names = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
            if names & {"cache", "lru_cache"} and (module.name, node.name) not in CACHED:
                arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
                if module.domain != "email" or not arguments:
                    yield f"{node.name} is cached"


# ---- SQL


RUNS = ("run", "row", "rows", "value", "later")


@cache
def statements(module: Module) -> list[tuple[str, ast.expr, ast.FunctionDef]]:
    """Every statement given to a transaction, with the function it stands in."""
    found = []
    for function in module.nodes:
        if not isinstance(function, ast.FunctionDef):
            continue
        for node in ast.walk(function):
            if not (isinstance(node, ast.Call) and node.args):
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            given = []
            if called in ("together", "end_with"):
                given = [part.elts[0] for part in node.args if isinstance(part, ast.Tuple)]
                assert len(given) == len(node.args), "each stands there, with its values"
            elif called == "alone" or (called in RUNS and isinstance(node.func, ast.Attribute)):
                given = [node.args[-1] if called == "value" else node.args[0]]
            found += [(f"{module.name}:{node.lineno}", sql, function) for sql in given]
    return found


def _written(expression: ast.expr, module: Module) -> str:
    """The text of a statement; a name that is not a constant of the module stands as {name}."""
    if isinstance(expression, ast.Constant):
        return str(expression.value)
    if isinstance(expression, ast.JoinedStr):
        return "".join(_written(part, module) for part in expression.values)
    if isinstance(expression, ast.FormattedValue):
        return _written(expression.value, module)
    if isinstance(expression, ast.BinOp):
        return _written(expression.left, module) + _written(expression.right, module)
    if isinstance(expression, ast.Name) and expression.id in module.constants:
        value = module.constants[expression.id]
        # One that a table is turned into, at import, is as constant as that table.
        if not any(isinstance(node, ast.comprehension) for node in ast.walk(value)):
            return _written(value, module)
    return f"{{{ast.unparse(expression)}}}"


def _literals(function: ast.FunctionDef) -> set[str]:
    """Parameters that can only be one of some texts."""
    arguments = function.args.args + function.args.kwonlyargs
    return {a.arg for a in arguments if a.annotation and "Literal[" in ast.unparse(a.annotation)}


def built_sql(module: Module) -> Iterator[str]:
    """Values travel as parameters; a statement is put together from constants only."""
    if module.name in ("kyora.postgres.connection", *FILES_AS_SQL):
        return
    for where, expression, function in statements(module):
        unknown = {
            name
            for name in re.findall(r"\{([^{}]*)\}", _written(expression, module))
            if not re.fullmatch(r"([a-z_]+\.)?[A-Z_]+", name)  # a constant, here or of a module
            and name not in _literals(function)
            and not re.fullmatch(r"\w+(,\w+)*", name)  # a text[] literal such as {data,token}
        }
        unknown |= {
            node.id
            for node in ast.walk(expression)
            if isinstance(node, ast.Name)
            and not node.id.isupper()
            and node.id not in _literals(function)
        }
        for name in sorted(unknown):
            yield f"{where} puts {name} into a statement"
        if isinstance(expression, ast.Call):
            yield f"{where} computes a statement"


def crosses_tenants(module: Module) -> Iterator[str]:
    """A statement on a tenant's rows names the tenant."""
    pattern = rf"\b(?:FROM|JOIN|UPDATE|INTO)\s+({'|'.join(TENANTS)})\b"
    for where, expression, function in statements(module):
        sql = _written(expression, module)
        if (module.name, function.name) in EVERY_TENANT:
            continue
        for table in sorted(set(re.findall(pattern, sql))):
            if "workspace_id" not in sql:
                yield f"{where} uses {table} without workspace_id"


def writes_accounts(module: Module) -> Iterator[str]:
    """The functions' role may only read what accounts keep; a row lock asks for UPDATE as well."""
    accounts = r"(?:workspace|app_user)\b"
    writes = rf"\b(?:INTO|UPDATE|DELETE FROM)\s+{accounts}|\b(?:UPDATE|DELETE FROM)\s+business\b"
    locks = rf"\bFROM\s+(?:{accounts}|business\b)[^()]*\bFOR (?:NO KEY |KEY )?(?:UPDATE|SHARE)"
    for where, expression, _ in statements(module):
        if module.name in WRITES_ACCOUNTS:
            continue
        if found := re.search(f"{writes}|{locks}", _written(expression, module)):
            yield f"{where}: {found.group()}"


def session_state(module: Module) -> Iterator[str]:
    """RDS Proxy pins a connection to a client that leaves something in its session."""
    pattern = r"^\s*(SET|PREPARE|LISTEN|DECLARE|DISCARD|CREATE TEMP)\b|pg_(try_)?advisory_lock"
    for where, expression, _ in statements(module):
        if found := re.search(pattern, _written(expression, module)):
            yield f"{where}: {found.group().strip()}"


# What reads the time of day. `time.monotonic` measures durations, and is no clock.
CLOCKS = {
    "time": (
        *("time", "time_ns", "clock_gettime", "clock_gettime_ns"),
        *("gmtime", "localtime", "ctime", "asctime", "strftime"),
    ),
    "datetime": ("now", "utcnow", "today"),
    "date": ("today",),
    "utils": ("formatdate", "localtime"),  # of `email`
    "uuid": ("uuid1", "uuid6", "uuid7"),
}
# SQL's other clocks. `make time` moves `now()`, and cannot move a keyword.
SQL_CLOCKS = re.compile(
    r"\b(?:current_(?:timestamp|date|time)|local(?:timestamp|time)|timeofday"
    r"|(?:clock|statement|transaction)_timestamp)\b|\bpg_catalog\.now\b"
    r"|'(?:now|today|tomorrow|yesterday)'",
    re.IGNORECASE,
)


def reads_clock(module: Module) -> Iterator[str]:
    """One module says what time it is; SQL says `now()`."""
    if module.name == CLOCK:
        return
    for node in module.nodes:
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).rpartition(".")[2]
            if node.attr in CLOCKS.get(owner, ()):
                yield f"line {node.lineno} reads {ast.unparse(node)}: ask kyora.clock"
        if isinstance(node, ast.ImportFrom):
            owner = str(node.module).rpartition(".")[2]
            for alias in node.names:
                # The class `datetime` shares its module's name, and is what everyone needs.
                if alias.name in CLOCKS.get(owner, ()):
                    yield f"imports {alias.name} of {node.module}: ask kyora.clock"
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and (found := SQL_CLOCKS.search(text)):
            yield f"line {node.lineno}: {found.group()} in SQL: take now()"


RULES: list[Callable[[Module], Iterator[str]]] = [
    wrong_arrows,
    upward_arrows,
    logic_in_a_package,
    foreign_clients,
    reads_environment,
    hidden_state,
    built_sql,
    crosses_tenants,
    writes_accounts,
    session_state,
    reads_clock,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("module", OURS, ids=lambda module: module.name)
def test_the_code_keeps_its_shape(module: Module, rule: Callable[[Module], Iterator[str]]) -> None:
    assert list(rule(module)) == []


BREAKING: list[tuple[Callable[[Module], Iterator[str]], str, str]] = [
    (wrong_arrows, "kyora.postgres.connection", "from kyora.assets import rules"),
    (wrong_arrows, "kyora.assets.rules", "from kyora import billing"),
    (wrong_arrows, "kyora.assets.rules", "def f():\n    import kyora.email.render"),
    (wrong_arrows, "kyora.assets", "from kyora import http"),
    (wrong_arrows, "kyora.aws", "import local.stack"),
    (upward_arrows, "kyora.billing.mirror.customers", "from kyora.billing.events import process"),
    (upward_arrows, "kyora.billing.plans.sync", "from kyora.billing.mirror import terms"),
    (upward_arrows, "kyora.billing.events.gone", "def f():\n    import kyora.billing.api.lease"),
    (upward_arrows, "kyora.billing.jobs.sweep", "from kyora.billing.api import lease"),
    (upward_arrows, "kyora.billing.access", "from kyora.billing.plans import derive"),
    (foreign_clients, "kyora.assets", "import boto3"),
    (foreign_clients, "kyora.assets", "def f():\n    from pg8000.native import Connection"),
    (foreign_clients, "kyora.billing.plans.sync", "import stripe"),
    (foreign_clients, "kyora.bus.outbox", "from urllib.request import urlopen"),
    (foreign_clients, "kyora.cache", "from pymemcache.client.base import Client"),
    (foreign_clients, "kyora.aws", "import boto3"),
    (reads_environment, "kyora.auth", "import os\nx = os.environ['A']"),
    (reads_environment, "kyora.auth", "from os import environ"),
    (reads_environment, "kyora.auth", "import os\ndef f(): return os.getenv('A')"),
    (hidden_state, "kyora.auth", "_seen = {}"),
    (hidden_state, "kyora.auth", "_seen: list[str] = []"),
    (hidden_state, "kyora.auth", "seen = dict[str, int]()"),
    (hidden_state, "kyora.auth", "X = []\ndef f(): X.append(1)"),
    (hidden_state, "kyora.auth", "X = {}\ndef f(): X['a'] = 1"),
    (hidden_state, "kyora.auth", "x = 1\ndef f():\n    global x\n    x = 2"),
    (hidden_state, "kyora.auth", "@cache\ndef f(): return 1"),
    (built_sql, "kyora.auth", "def f(tx, x): tx.run(f'SELECT {x}')"),
    (built_sql, "kyora.auth", "def f(tx, x): tx.row('SELECT ' + x)"),
    (built_sql, "kyora.auth", "def f(tx, x): tx.rows('SELECT {}'.format(x))"),
    (built_sql, "kyora.auth", "def f(tx, x): tx.rows('SELECT %s' % x)"),
    (built_sql, "kyora.auth", "def f(tx, sql): tx.rows(sql)"),
    (built_sql, "kyora.auth", "def f(tx, x): tx.value(int, f'SELECT {x}')"),
    (built_sql, "kyora.auth", "def f(tx, x: str): tx.run(f'SELECT {x.y}')"),
    (crosses_tenants, "kyora.assets", "def f(tx): tx.row('SELECT * FROM asset WHERE id = :id')"),
    (crosses_tenants, "kyora.auth", "def f(tx): tx.run('DELETE FROM app_user')"),
    (crosses_tenants, "kyora.x", "Q = 'UPDATE business SET a = 1'\ndef f(tx): tx.run(Q)"),
    (session_state, "kyora.x", "def f(tx): tx.run('SET statement_timeout = 1')"),
    (session_state, "kyora.x", "def f(tx): tx.run('SELECT pg_advisory_lock(1)')"),
    (reads_clock, "kyora.x", "import time\ndef f(): return time.time()"),
    (reads_clock, "kyora.x", "from time import time_ns"),
    (reads_clock, "kyora.x", "import time\ndef f(): return time.strftime('%Y')"),
    (reads_clock, "kyora.x", "from datetime import datetime\ndef f(): return datetime.now(None)"),
    (reads_clock, "kyora.x", "import datetime\ndef f(): return datetime.datetime.now(None)"),
    (reads_clock, "kyora.x", "from datetime import date\ndef f(): return date.today()"),
    (reads_clock, "kyora.x", "from email.utils import formatdate"),
    (reads_clock, "kyora.x", "def f(tx): tx.run('SELECT 1 WHERE a > CURRENT_DATE')"),
    (reads_clock, "kyora.x", "SQL = 'SELECT clock_timestamp()'"),
    (writes_accounts, "kyora.auth", "def f(tx):\n    tx.run('UPDATE app_user SET role = 1')"),
    (
        writes_accounts,
        "kyora.auth",
        "def f(tx):\n    tx.row('SELECT 1 FROM workspace WHERE id = :id FOR NO KEY UPDATE')",
    ),
]


@pytest.mark.parametrize(("rule", "name", "source"), BREAKING)
def test_each_rule_is_broken_by_what_it_forbids(
    rule: Callable[[Module], Iterator[str]], name: str, source: str
) -> None:
    assert list(rule(Module(name, source)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_function_reads_the_clock(name: str) -> None:
    assert list(reads_clock(Module(f"functions.{name}", FUNCTIONS[name]))) == []


@pytest.mark.parametrize(
    "file",
    sorted((LAYER / "kyora" / "postgres" / "migrations").glob("*.sql")),
    ids=lambda f: f.name,
)
def test_a_migration_takes_now_and_no_other_clock(file: Path) -> None:
    assert SQL_CLOCKS.findall(file.read_text()) == []


def test_no_modules_of_the_layer_import_each_other() -> None:
    """Not even inside a function. A package only hands on what is in its modules."""
    imports = {module.name: module.imports for module in OURS}
    packages = {name.rpartition(".")[0] for name in imports}
    imports = {name: found for name, found in imports.items() if name not in packages}
    assert len([name for name in imports if name.startswith("kyora.billing.")]) > 30
    assert list(circles(imports)) == []


@pytest.mark.parametrize(
    "source", ["", "x = 1", '"""The map."""\nimport os', '"""The map."""\ndef f(): return 1']
)
def test_a_package_with_logic_is_found(source: str) -> None:
    assert list(logic_in_a_package(Module("kyora.assets", source, package=True)))


def test_constants_and_literals_may_stand_in_a_statement() -> None:
    source = (
        "DAYS = 7\n_WHERE = 'a = 1'\n"
        "def f(tx, column: Literal['a', 'b']):\n"
        "    tx.run(f'SELECT {column} FROM x WHERE {_WHERE} AND d > {DAYS}')\n"
        "    tx.run('SELECT 1' f' FROM {_WHERE}', x=5)\n"
    )
    assert list(built_sql(Module("kyora.x", source))) == []


def test_no_exception_is_granted_that_no_one_needs() -> None:
    """An entry of a list above whose reason has gone is taken off the list."""
    names = {module.name for module in OURS}
    started = {domain for module in OURS if (domain := module.domain)}
    begun = (*started, "postgres", "storage", "aws", "auth", "config", "cache")
    for name in {*ENVIRONMENT, *CLIENTS, *FILES_AS_SQL}:
        if name.split(".")[1] in begun:
            assert name in names
    by_name = {module.name: module.source for module in OURS}
    for name, state in STATE:
        assert re.search(rf"^{state}\b", by_name[name], re.MULTILINE), (name, state)
    for name, function in (*CACHED, *EVERY_TENANT):
        assert f"def {function}(" in by_name[name]
    for name in LOGIC_IN_PACKAGES:
        assert len(ast.parse(by_name[name]).body) > 1, name


def test_the_driver_of_the_database_is_known_to_one_module() -> None:
    assert [m.name for m in OURS if any(i.startswith("pg8000") for i in m.imports)] == [
        "kyora.postgres.connection"
    ]


# ---- functions

SCREEN = 60  # lines
TRIGGERS = ("POST", "GET", "DELETE", "HTTP API", "$default", "Every", "S3", "CloudFormation")
TRIGGERS += ("Function URL", "Once a day", "Hourly", "At deploy", "SQS", "EventBridge")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_one_screen_that_says_what_triggers_it_and_what_it_emits(name: str) -> None:
    source = FUNCTIONS[name]
    assert source.count("\n") <= SCREEN
    docstring = ast.get_docstring(ast.parse(source)) or ""
    first = docstring.splitlines()[0] if docstring else ""
    assert ":" in first, "the first line is `trigger: what it does`"
    assert any(trigger in docstring for trigger in TRIGGERS) or "through SQS" in first
    assert re.search(r"\b[Ee]mits?\b", docstring)
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name), "a function is called verb_noun"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_imports_kyora_and_nothing_else(name: str) -> None:
    allowed = ("kyora", "typing", "collections.abc", "aws_lambda_powertools")
    for found in sorted(Module(f"functions.{name}", FUNCTIONS[name]).imports):
        assert found.startswith(allowed), found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_holds_no_sql_no_client_and_no_state(name: str) -> None:
    module = Module("functions." + name, FUNCTIONS[name])
    assert not re.search(r"\b(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b", module.source)
    assert list(reads_environment(module)) == []
    assert [fault for fault in hidden_state(module) if "ROUTES" not in fault] == []
    assert "transaction(" not in module.source


def test_every_function_folder_holds_one_file() -> None:
    """There are no packages under functions/: what two of them need is in the layer."""
    for folder in (ROOT / "functions").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            files = {path.name for path in folder.iterdir()} - {"__pycache__"}
            assert files <= {"app.py"}, folder.name


# ---- the Stripe stand-in

STANDIN = ROOT / "local" / "stripe"
# From the bottom to the top: a part imports what stands before it.
PARTS = ("core", "sdk", "objects", "engine", "faults", "pump", "standin", "pages", "control")
PARTS += ("server", "__main__", "child", "")


def climbing(name: str, imports: set[str]) -> Iterator[str]:
    """Say which imports of a module of the stand-in point upwards."""
    part = name.removeprefix("local.stripe").lstrip(".").partition(".")[0]
    for other in sorted(imports):
        if not other.startswith("local.stripe."):
            continue
        theirs = other.split(".")[2]
        if theirs in PARTS and PARTS.index(theirs) > PARTS.index(part):
            yield f"{name} imports {other}"


def circles(imports: dict[str, set[str]]) -> Iterator[str]:
    """Say which modules are left when those that import none of the others are taken away."""
    left = {name: found & set(imports) - {name} for name, found in imports.items()}
    while free := {name for name, found in left.items() if not found}:
        left = {name: found - free for name, found in left.items() if name not in free}
    yield from sorted(left)


def test_the_stand_in_is_built_from_the_bottom_up() -> None:
    imports = {}
    for path in sorted(STANDIN.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        imports[name] = Module(name, path.read_text()).imports
        assert list(climbing(name, imports[name])) == []
    assert list(circles(imports)) == []


def test_a_climbing_import_and_a_circle_are_seen() -> None:
    assert list(climbing("local.stripe.pages.hosted", {"local.stripe.server"}))
    assert list(climbing("local.stripe.pages.hosted", {"local.stripe.standin"})) == []
    assert list(circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()})) == ["a", "b", "c"]


# ---- local/: what a folder may import, and no circle

# Each folder with those that it may import; "" are the files beside them, which all share.
LOCAL_FOLDERS: dict[str, set[str]] = {
    "": set(),
    "stack": {""},
    "web": {"", "stack", "tools"},
    "stripe": {"", "web"},
    "tools": {"", "stack"},
    "commands": {"", "stack", "web", "stripe", "tools"},
}


def local_folder(name: str) -> str:
    """The folder of `local.web.front`: `web`; of `local.settings` it is ""."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LOCAL_FOLDERS else ""


@cache
def local_modules() -> dict[str, Module]:
    found = {}
    for path in sorted((ROOT / "local").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = Module(name, path.read_text())
    return found


def wrong_folders(module: Module) -> Iterator[str]:
    """A module of local/ imports from its own folder and from those below it."""
    mine = local_folder(module.name)
    for name in sorted(module.imports):
        theirs = local_folder(name)
        if name.startswith("local.") and theirs != mine and theirs not in LOCAL_FOLDERS[mine]:
            yield f"imports {name}"


def test_folders_of_local_point_one_way() -> None:
    assert [
        (name, fault)
        for name, module in local_modules().items()
        if name != "local.__main__"  # the command line reaches everything
        for fault in wrong_folders(module)
    ] == []
    assert list(wrong_folders(Module("local.stack.x", "def f():\n    from local.web import front")))


def test_nothing_in_local_imports_in_a_circle() -> None:
    assert list(circles({name: module.imports for name, module in local_modules().items()})) == []


# ---- tests


def borrowing(module: Module) -> Iterator[str]:
    """What several tests use stands in a support file, never in a module of tests."""
    for name in sorted(module.imports):
        if name.startswith("tests.") and re.search(r"\.test_\w+", name):
            yield f"imports {name}"


def test_no_test_imports_a_module_of_tests() -> None:
    for folder in ("tests", "bench"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            assert list(borrowing(Module(str(path.relative_to(ROOT)), path.read_text()))) == []
    assert list(borrowing(Module("tests.x", "from tests.unit.test_http import ask")))
    assert list(borrowing(Module("tests.x", "from tests.unit import test_http")))


# ---- what the repository may hold

MACHINES = re.compile(
    rb"/(work/(main|shared|\.library)|root/|home/[a-z]|Users/[A-Za-z]|tmp/(boot|team))"
    rb"|pypi\.org|files\.pythonhosted\.org|registry\.npmjs\.org|/simple/?\"|proxy\.golang\.org"
)
SECRETS = re.compile(
    rb"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|sk_live_[0-9a-zA-Z]{10}"
    rb"|re_[A-Za-z0-9]{8}_[A-Za-z0-9]{16}"
)
SELF = "tests/unit/test_architecture.py"


def tracked() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("this is no git checkout")
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_names_a_machine_a_registry_or_a_secret() -> None:
    for name in tracked():
        if name in ("uv.lock", SELF):
            continue
        content = (ROOT / name).read_bytes()
        assert not (found := MACHINES.search(content)), f"{name}: {found and found.group()!r}"
        assert not (found := SECRETS.search(content)), f"{name}: {found and found.group()!r}"


def test_what_is_made_here_is_not_tracked() -> None:
    for name in tracked():
        assert not re.search(r"(^|/)(\.venv|\.local|\.aws-sam|__pycache__|tmp)/|\.pyc$", name), name
        assert (ROOT / name).stat().st_size < 1_000_000, name


def test_the_top_level_is_the_one_that_was_agreed() -> None:
    """Anyone who knows one SAM project finds everything."""
    expected = {"template.yaml", "functions", "layers", "events", "tests", "samconfig.toml"}
    expected |= {"Makefile", "pyproject.toml", "uv.lock", ".python-version", "local", "bench"}
    top = {name.partition("/")[0] for name in tracked()}
    assert expected <= top
    assert top <= expected | {
        "plans.toml",
        ".ci",
        ".gitignore",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "docs",
        "examples",
    }
    assert (ROOT / ".python-version").read_text().strip() == "3.13"
