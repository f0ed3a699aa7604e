"""A Paprika agent in Python, written from docs/protocol.md; the numbers R-… are the requirements of that page.

This file is the link; commands.py keeps and runs the commands. What is left out stands in README.md. Everything runs on
one asyncio loop: whatever happens between two `await`s happens at once.
"""
import argparse, asyncio, logging, os, random, signal, ssl, struct, sys, time
from pathlib import Path

from commands import CHUNK, STREAMS, Agent, durable
from link.v1 import command_pb2 as pb, frame_pb2 as fb, handshake_pb2 as hb, inventory_pb2 as ib

log = logging.getLogger("agent")
MAX_FRAME, PAGE = 1 << 20, 1000  # R-FRAME-2, R-INV-1


async def live(agent):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3  # R-TLS-2
    tls.set_alpn_protocols(["paprika/1"])
    tls.load_verify_locations(agent.options.ca)
    tls.load_cert_chain(agent.options.cert, agent.options.key)
    bound = 0.5
    while True:  # R-LIVE-3
        began, least = time.monotonic(), 0
        try:
            least = await Session(agent).hold(tls)
        except (OSError, EOFError, asyncio.TimeoutError, ConnectionError, ValueError) as error:
            log.warning("no session: %r", error)
        agent.session = None
        bound = 0.5 if time.monotonic() - began > 60 else min(bound * 2, 60)
        await asyncio.sleep(max(least, random.uniform(0, bound)))
        agent.sweep()


class Session:
    """One connection: a reader, a writer that lets control go first (R-LANE-1), and the pulse."""

    def __init__(self, agent):
        self.agent, self.seq, self.control, self.wake = agent, 0, [], asyncio.Event()
        self.offsets, self.granted, self.spent, self.open = {}, {}, 0, False

    async def hold(self, tls):
        a = self.agent
        host, port = a.options.manager.rsplit(":", 1)
        connecting = asyncio.open_connection(host, int(port), ssl=tls, server_hostname="manager.paprika.internal")  # R-TLS-4
        self.reader, self.writer = await asyncio.wait_for(connecting, 10)
        try:
            names = [value for kind, value in self.writer.get_extra_info("peercert")["subjectAltName"] if kind == "URI"]
            if len(names) != 1 or not names[0].startswith(f"paprika://{a.cluster}/manager/"):  # R-TLS-6
                raise ValueError(f"the peer is not a manager of our cluster: {names}")
            if self.writer.get_extra_info("ssl_object").selected_alpn_protocol() != "paprika/1":
                raise ValueError("the peer does not speak paprika/1")
            self.send(client_hello=hb.ClientHello(
                protocol_min=1, protocol_max=1, agent_name=a.name, cluster_id=a.cluster, journal_id=a.journal, cores=os.cpu_count(),
                boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(), incarnation=a.heard["incarnation"],
                store_position=a.heard["position"], agent_version="python-example", isolation="best_effort"))
            writing = asyncio.create_task(self.write())
            try:
                frame = await asyncio.wait_for(self.read(), 10)
                if frame.WhichOneof("body") == "bye":
                    return self.bye(frame.bye)
                if frame.WhichOneof("body") != "server_hello":
                    raise ValueError("the first frame is not a hello")
                self.welcome(frame.server_hello)
                reading, pulse = asyncio.create_task(self.serve()), asyncio.create_task(self.pulse())
                done, rest = await asyncio.wait({writing, reading, pulse}, return_when=asyncio.FIRST_COMPLETED)
                for task in rest:
                    task.cancel()
                return done.pop().result()
            finally:
                writing.cancel()
        finally:
            self.writer.transport.abort()

    def welcome(self, hello):
        a = self.agent
        other_life = hello.incarnation != a.heard["incarnation"]  # R-INV-4
        self.credit, self.session_limit = hello.limits.stream_credit, hello.limits.session_credit
        self.beat = min(max(hello.heartbeat_ms / 1000, 0.2), 300)  # R-SESSION-6
        a.learn(hello.store_position, hello.clock_ms, hello.incarnation, save=True)
        a.session, self.open = self, True
        log.info("connected, epoch %d", hello.epoch)
        held = [e for e in a.entries.values() if other_life or not e.tombstone]
        pages = [held[at:at + PAGE] for at in range(0, len(held), PAGE)] or [[]]
        for number, page in enumerate(pages, 1):
            self.list(page, number == len(pages))

    def list(self, entries, last, describe=False):
        self.send(inventory=ib.Inventory(last=last, items=[ib.InventoryItem(
            uid=e.uid, id=e.command.id, phase=e.phase(), generation=e.command.generation, tombstone=e.tombstone,
            streams=[ib.StreamLength(stream=s, length=e.length(s)) for s in STREAMS if e.length(s)],
            command=e.command.SerializeToString() if describe else b"") for e in entries]))

    def send(self, reply_to=0, **body):
        if self.open or "client_hello" in body:
            self.control.append((reply_to, body))
            self.wake.set()

    async def write(self):
        while True:
            await self.wake.wait()
            self.wake.clear()
            while frame := self.control.pop(0) if self.control else self.chunk():
                self.seq += 1
                content = fb.Frame(seq=self.seq, reply_to=frame[0], **frame[1]).SerializeToString()
                self.writer.write(struct.pack(">I", len(content)) + content)
                await self.writer.drain()

    def chunk(self):
        """The next piece of output that is there and has credit (R-CREDIT-1), streams in turn."""
        for key in list(self.offsets):
            (uid, stream), offset = key, self.offsets[key]
            entry = self.agent.entries.get(uid)
            if not entry or entry.tombstone:
                del self.offsets[key]
                continue
            length = entry.length(stream)
            size = min(length - offset, CHUNK, self.granted[key] - offset, self.session_limit - self.spent)
            end = bool(entry.result) and offset + size == length  # R-OUT-4
            if size <= 0 and not (end and length):
                continue
            with open(entry.folder / STREAMS[stream], "rb") as file:
                file.seek(offset)
                content = file.read(size)
            del self.offsets[key]
            if not end:
                self.offsets[key] = offset + size  # behind the others
            self.spent += size
            return 0, {"command_output": pb.CommandOutput(uid=uid, stream=stream, offset=offset, data=content, end=end)}
        return None

    async def read(self):
        length = struct.unpack(">I", await self.reader.readexactly(4))[0]
        if not 0 < length <= MAX_FRAME:
            raise ValueError(f"a frame of {length} bytes")
        frame = fb.Frame.FromString(await self.reader.readexactly(length))
        self.heard_at = time.monotonic()
        return frame

    async def pulse(self):
        while (silent := time.monotonic() - self.heard_at) < 2.5 * self.beat:  # R-LIVE-1
            if silent >= self.beat:
                self.send(ping=fb.Ping(clock_ms=int(time.time() * 1000)))
            await asyncio.sleep(self.beat / 2)
        raise EOFError("the manager is silent")

    async def serve(self):
        while True:
            frame = await self.read()
            kind = frame.WhichOneof("body")
            if kind == "bye":
                return self.bye(frame.bye)
            if kind is None:
                if not frame.may_ignore:  # R-FRAME-5
                    self.send(frame.seq, nak=fb.Nak(code=fb.Nak.UNSUPPORTED))
            elif kind in ("client_hello", "server_hello"):
                raise ValueError(f"{kind} has no place here")
            else:
                getattr(self, "on_" + kind, lambda *_: None)(getattr(frame, kind), frame.seq)

    def bye(self, bye):
        log.warning("the manager says %s: %s", fb.Bye.Code.Name(bye.code), bye.reason)
        slow = bye.code in (fb.Bye.SUPERSEDED, fb.Bye.AUTH_FAILED, fb.Bye.BANNED, fb.Bye.UPGRADE_REQUIRED)
        return max(bye.retry_after_ms / 1000, random.uniform(20, 60) if slow else 0)

    def ship(self, entry, lengths=()):
        """From now on the bytes of a command leave as they come."""
        for stream in STREAMS:
            offset = next((item.length for item in lengths if item.stream == stream), 0)
            self.offsets[entry.uid, stream], self.granted[entry.uid, stream] = offset, offset + self.credit
        self.wake.set()

    def on_ping(self, ping, seq):
        self.agent.learn(ping.store_position, ping.clock_ms)
        self.send(seq, pong=fb.Pong(clock_ms=int(time.time() * 1000)))  # R-LIVE-2

    def on_nak(self, nak, seq):
        raise ValueError(f"Nak {fb.Nak.Code.Name(nak.code)}: {nak.reason}")  # R-OUT-2: the next Reconcile names the offsets

    def on_output_credit(self, grant, seq):
        self.session_limit = max(self.session_limit, grant.session_bytes)
        key = (grant.uid, grant.stream)
        self.granted[key] = max(self.granted.get(key, 0), grant.offset)  # R-CREDIT-2
        self.wake.set()

    def on_command(self, command, seq):
        a, known = self.agent, self.agent.entries.get(command.uid)
        a.learn(command.store_position)

        def answer(what, entry=None, **more):
            more |= {"phase": entry.phase()} if entry else {}
            self.send(seq, command_ack=pb.CommandAck(uid=command.uid, answer=what, **more))

        if known:  # R-CMD-3
            answer(pb.CommandAck.DUPLICATE, known)
            return self.send(command_result=known.result) if known.result else None
        if any(e.command.id == command.id for e in a.entries.values()):  # R-CMD-4
            return self.send(seq, nak=fb.Nak(code=fb.Nak.CONFLICT))
        if command.generation != a.generation:  # R-CMD-6
            return answer(pb.CommandAck.REFUSED, code="generation")
        if command.operation not in ("command.run", "agent.ping"):  # R-CMD-7
            return answer(pb.CommandAck.REFUSED, code="unknown_operation")
        entry = a.accept(command)
        if a.now() > command.expires_ms:  # R-CMD-5
            entry.end(pb.EXPIRED)
            answer(pb.CommandAck.EXPIRED)
            return a.tell(entry)
        answer(pb.CommandAck.ACCEPTED, entry)
        self.ship(entry)
        self.begin(entry)

    def begin(self, entry):
        if entry.command.operation == "agent.ping":
            entry.end(pb.SUCCEEDED, value=b'{"pong": true}')
            self.agent.tell(entry)
        else:
            entry.task = asyncio.create_task(self.agent.run(entry))

    def on_command_cancel(self, cancel, seq):
        entry = self.agent.entries.get(cancel.uid)
        if not entry:
            entry = self.agent.accept(pb.Command(uid=cancel.uid, id=cancel.id, expires_ms=cancel.expires_ms,
                                                 generation=cancel.generation))
        if not entry.result:
            durable(entry.folder / "cancel", cancel.SerializeToString())
        self.send(seq, ack=fb.Ack())
        self.agent.wish(entry, cancel)

    def on_result_ack(self, ack, seq):
        self.agent.learn(ack.store_position)
        if (entry := self.agent.entries.get(ack.uid)) and entry.result:
            self.agent.forget(entry)

    def on_reconcile(self, page, seq):
        for item in page.items:
            entry = self.agent.entries.get(item.uid)
            if not entry:
                continue
            if item.action == ib.ReconcileItem.FORGET and entry.result:
                self.agent.forget(entry)
            elif item.action == ib.ReconcileItem.DESCRIBE:
                self.list([entry], page.last, describe=True)
            elif item.action == ib.ReconcileItem.NOT_MINE:
                entry.result or entry.started or entry.end(pb.REFUSED, error_code="generation")
                entry.result and self.agent.forget(entry)
            elif item.action in (ib.ReconcileItem.CONTINUE, ib.ReconcileItem.STOP):
                self.ship(entry, item.streams)
                if entry.result:
                    self.send(command_result=entry.result)  # R-RES-3
                elif not entry.started and (entry.folder / "cancel").exists():
                    self.agent.wish(entry, pb.CommandCancel.FromString((entry.folder / "cancel").read_bytes()))
                elif not entry.started:  # accepted before a restart
                    self.begin(entry)


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--manager", required=True, help="host:port of the manager's link")
    options.add_argument("--state", default="state", help="folder for what must survive")
    for name in ("cert", "key", "ca"):
        options.add_argument(f"--{name}", default=f"{name}.pem")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    try:
        asyncio.run(live(Agent(options.parse_args())))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main()
