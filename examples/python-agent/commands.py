"""What the example agent promises about commands: their folders, their processes, their ends. It knows nothing of the link.

A command is a folder: `command` (as received), `started`, `stdout`, `stderr`, `cancel`, `result`, `tombstone`. A file is
there whole or not at all, and nothing is said to the manager before its file is there.
"""
import asyncio, json, logging, os, re, shutil, signal, ssl, time
from pathlib import Path

from link.v1 import command_pb2 as pb

log = logging.getLogger("agent")
STREAMS = {pb.STDOUT: "stdout", pb.STDERR: "stderr"}
CHUNK, GRACE_UNSET = 32 << 10, 0xFFFFFFFF  # R-OUT-1, CommandCancel.grace_ms


def durable(path, content):
    """Writes a file so that it is there, whole, after a crash, or not at all."""
    new = path.with_name(path.name + ".new")
    with open(new, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def identity(certificate):
    """Cluster, name and generation from the URI in a certificate (R-TLS-5): tag 0x86, length, text."""
    der = ssl.PEM_cert_to_DER_cert(re.search(r"-----BEGIN.*?END CERTIFICATE-----", certificate, re.S)[0])
    found = re.search(rb"\x86\x81?(.)(?=paprika://)", der, re.S)
    uri = der[found.end():found.end() + found[1][0]].decode()
    cluster, role, name, generation = uri.removeprefix("paprika://").split("/")
    assert role == "agent", uri
    return cluster, name, int(generation)


class Entry:
    """One command: its folder, what was promised, and how it ended. A tombstone has lost its bytes."""

    def __init__(self, folder, command):
        self.folder, self.command, self.uid = folder, command, command.uid
        self.result, self.process, self.killer, self.cancel, self.stopping = None, None, None, None, False
        if (folder / "result").exists():
            self.result = pb.CommandResult.FromString((folder / "result").read_bytes())

    started = property(lambda self: (self.folder / "started").exists())
    tombstone = property(lambda self: (self.folder / "tombstone").exists())

    def length(self, stream):
        path = self.folder / STREAMS[stream]
        return path.stat().st_size if path.exists() else 0

    def phase(self):
        if self.result:
            return pb.ENDED
        return (pb.STOPPING if self.cancel else pb.RUNNING) if self.process else pb.ACCEPTED

    def end(self, outcome, **facts):
        if self.result:
            return  # R-RES-5
        ends = [pb.StreamEnd(stream=s, length=self.length(s)) for s in STREAMS if self.length(s)]
        self.result = pb.CommandResult(uid=self.uid, id=self.command.id, outcome=outcome, streams=ends,
                                       isolation="best_effort", finished_ms=int(time.time() * 1000), **facts)
        if self.cancel:
            self.result.cancelled_by, self.result.cancel_reason = self.cancel.by, self.cancel.reason
        durable(self.folder / "result", self.result.SerializeToString())


class Agent:
    """Everything that outlives a session. `session` is whoever is connected at present, or None."""

    def __init__(self, options):
        self.options, self.dir = options, Path(options.state)
        (self.dir / "commands").mkdir(parents=True, exist_ok=True)
        self.cluster, self.name, self.generation = identity(Path(options.cert).read_text())
        if not (self.dir / "journal").exists():
            durable(self.dir / "journal", os.urandom(16))
        self.journal = (self.dir / "journal").read_bytes()
        known = self.dir / "manager"  # R-INV-6 and R-CMD-5: what was heard of the manager never goes back
        self.heard = json.loads(known.read_text()) if known.exists() else {"incarnation": 0, "position": 0, "clock": 0}
        self.clock_at, self.entries, self.session = time.monotonic(), {}, None
        for folder in (self.dir / "commands").iterdir():
            if not (folder / "command").exists():
                shutil.rmtree(folder)  # it was never promised
                continue
            entry = Entry(folder, pb.Command.FromString((folder / "command").read_bytes()))
            self.entries[entry.uid] = entry
            if entry.started and not entry.result:
                entry.end(pb.INTERRUPTED, error_code="agent_restarted", lengths_are_lower_bounds=True)

    def now(self):
        return self.heard["clock"] + int((time.monotonic() - self.clock_at) * 1000)

    def learn(self, position=0, clock=0, incarnation=None, save=False):
        clock, self.clock_at = max(clock, self.now()), time.monotonic()
        self.heard.update(clock=clock, position=max(position, self.heard["position"]))
        if incarnation is not None and incarnation != self.heard["incarnation"]:
            self.heard.update(incarnation=incarnation, position=position)
        if save:
            durable(self.dir / "manager", json.dumps(self.heard).encode())

    def accept(self, command):
        folder = self.dir / "commands" / command.uid.hex()
        folder.mkdir(exist_ok=True)
        durable(folder / "command", command.SerializeToString())  # R-CMD-2: before the answer
        entry = self.entries[command.uid] = Entry(folder, command)
        return entry

    def tell(self, entry):
        """Something about a command changed: whoever is connected hears of it."""
        if self.session and entry.result and not entry.tombstone:
            self.session.send(command_result=entry.result)
        elif self.session:
            self.session.send(command_progress=pb.CommandProgress(uid=entry.uid, phase=entry.phase(), isolation="best_effort",
                                                                  at_ms=int(time.time() * 1000)))

    def forget(self, entry):
        durable(entry.folder / "tombstone", b"")  # R-RES-4
        for name in STREAMS.values():
            (entry.folder / name).unlink(missing_ok=True)

    def sweep(self):
        for entry in [e for e in self.entries.values() if e.tombstone and self.now() > e.command.expires_ms + 3_600_000]:
            shutil.rmtree(entry.folder)
            del self.entries[entry.uid]

    async def run(self, entry):
        """Runs a command to its end; nothing it needs comes from the session."""
        command, args = entry.command, json.loads(entry.command.args or b"{}")
        home = os.path.expanduser("~")
        user = os.environ.get("USER", "root")
        env = {"PATH": os.defpath, "HOME": home, "USER": user, "LOGNAME": user, "SHELL": "/bin/sh", "LANG": "C.UTF-8",
               "PAPRIKA_AGENT": self.name, "PAPRIKA_COMMAND_ID": str(command.id), "PAPRIKA_COMMAND_UID": command.uid.hex()}
        env |= {variable.name: os.fsdecode(variable.value) for variable in command.env}
        argv = args.get("run") or ["/bin/sh", "-c", args["shell"]]
        durable(entry.folder / "started", b"")  # before the process: a crash in between reads as interrupted
        began, facts = time.time(), {}
        pipe = asyncio.subprocess.PIPE
        try:
            entry.process = await asyncio.create_subprocess_exec(
                *argv, env=env, cwd=command.cwd or "/", start_new_session=True, stdout=pipe, stderr=pipe,
                stdin=pipe if command.has_stdin else asyncio.subprocess.DEVNULL)
        except (OSError, ValueError) as error:
            entry.end(pb.FAILED, error_code="spawn", error_text=str(error)[:200])
            return self.tell(entry)
        self.tell(entry)
        if command.timeout_ms:
            entry.killer = asyncio.create_task(self.stop(entry, command.timeout_ms / 1000, 10.0))
        if entry.cancel:  # it came while the process was made
            self.wish(entry, entry.cancel)
        await asyncio.gather(self.keep(entry, entry.process.stdout, pb.STDOUT), self.keep(entry, entry.process.stderr, pb.STDERR),
                             self.feed(entry.process, command.stdin))
        code = await entry.process.wait()
        timed_out = entry.killer and not entry.cancel and entry.stopping
        if entry.killer:
            entry.killer.cancel()
        outcome = pb.CANCELLED if entry.cancel else pb.TIMED_OUT if timed_out else pb.SUCCEEDED if code == 0 else pb.FAILED
        facts |= {"signal": -code} if code < 0 else {"has_exit_code": True, "exit_code": code}
        entry.end(outcome, started_ms=int(began * 1000), duration_us=int((time.time() - began) * 1e6), **facts)
        log.info("command %d ended: %s", command.id, pb.Outcome.Name(outcome))
        self.tell(entry)

    async def feed(self, process, content):
        if process.stdin:
            try:
                process.stdin.write(content)
                await process.stdin.drain()
            except (BrokenPipeError, ConnectionResetError):
                pass  # it does not want its input: its business
            process.stdin.close()

    async def keep(self, entry, pipe, stream):
        """The file is the truth; the session reads it from there, as far as it has credit."""
        with open(entry.folder / STREAMS[stream], "ab", buffering=0) as file:
            while content := await pipe.read(CHUNK):
                file.write(content)
                if self.session:
                    self.session.wake.set()
            os.fsync(file.fileno())

    async def stop(self, entry, wait, grace):
        await asyncio.sleep(wait)
        entry.stopping = True
        for number, pause in ((signal.SIGTERM, grace), (signal.SIGKILL, 0)):
            if number == signal.SIGKILL or pause:
                try:
                    os.killpg(entry.process.pid, number)
                except ProcessLookupError:
                    return
            await asyncio.sleep(pause)

    def wish(self, entry, cancel):
        """Somebody wants a command stopped (R-CMD-8)."""
        if not entry.result:
            entry.cancel = cancel
            if entry.process:
                if entry.killer:
                    entry.killer.cancel()
                grace = 10.0 if cancel.grace_ms == GRACE_UNSET else cancel.grace_ms / 1000
                entry.killer = asyncio.create_task(self.stop(entry, 0, grace))
            elif not entry.started:
                entry.end(pb.CANCELLED)
        self.tell(entry)
