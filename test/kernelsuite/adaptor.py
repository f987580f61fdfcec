"""Lets clients that speak ZeroMQ talk to our kernel: for tests only.

Started through a kernelspec with a connection file. Binds the five sockets, starts the kernel program with a
socket pair as the agent does, and passes messages on in both directions.
"""

import json
import os
import signal
import socket
import struct
import subprocess
import sys

import zmq
from jupyter_client.session import Session

PROGRAM = os.path.join(os.path.dirname(__file__), "../../internal/kernel/python/launch.py")


class Kernel:
    """The agent's end of the socket pair."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        theirs.set_inheritable(True)
        self.process = subprocess.Popen(
            [sys.executable, "-B", PROGRAM, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        self.socket = ours
        self.buffer = b""

    def send(self, channel, message):
        parts = {
            key: message[key] for key in ("header", "parent_header", "metadata", "content")
        }
        text = json.dumps({"channel": channel, **parts}, default=str).encode()
        buffers = [bytes(b) for b in message.get("buffers", ())]
        frame = struct.pack(">II", len(text), len(buffers)) + text
        self.socket.sendall(frame + b"".join(struct.pack(">I", len(b)) + b for b in buffers))

    def receive(self):
        """Every message that has arrived; None at the end."""
        data = self.socket.recv(1 << 20)
        if not data:
            return None
        self.buffer += data
        messages = []
        while True:
            message, end = self._parse()
            if message is None:
                return messages
            messages.append(message)
            self.buffer = self.buffer[end:]

    def _parse(self):
        if len(self.buffer) < 8:
            return None, 0
        size, count = struct.unpack_from(">II", self.buffer)
        end = 8 + size
        if len(self.buffer) < end:
            return None, 0
        buffers = []
        for _ in range(count):
            if len(self.buffer) < end + 4:
                return None, 0
            (size,) = struct.unpack_from(">I", self.buffer, end)
            end += 4 + size
            if len(self.buffer) < end:
                return None, 0
            buffers.append(self.buffer[end - size : end])
        message = json.loads(self.buffer[8 : 8 + struct.unpack_from(">I", self.buffer)[0]])
        message["buffers"] = buffers
        return message, end

    def interrupt(self):
        bell = {"header": {"msg_id": "", "msg_type": "interrupt_request"}}
        self.send("control", {**bell, "parent_header": {}, "metadata": {}, "content": {}})
        os.killpg(self.process.pid, signal.SIGINT)


class Bridge:
    def __init__(self, connection_file):
        with open(connection_file) as file:
            config = json.load(file)
        self.session = Session(
            key=config["key"].encode(), signature_scheme=config["signature_scheme"]
        )
        self.kernel = Kernel()
        context = zmq.Context()
        self.sockets = {}
        for name, kind in (
            ("shell", zmq.ROUTER),
            ("control", zmq.ROUTER),
            ("stdin", zmq.ROUTER),
            ("iopub", zmq.XPUB),
            ("hb", zmq.ROUTER),
        ):
            socket = context.socket(kind)
            separator = ":" if config["transport"] == "tcp" else "-"
            socket.bind(
                f"{config['transport']}://{config['ip']}{separator}{config[name + '_port']}"
            )
            self.sockets[name] = socket
        self.identities = {}
        signal.signal(signal.SIGINT, lambda *_: self.kernel.interrupt())

    def run(self):
        poller = zmq.Poller()
        for socket in (*self.sockets.values(), self.kernel.socket):
            poller.register(socket, zmq.POLLIN)
        while True:
            ready = {socket for socket, _ in poller.poll()}
            for name in ("shell", "control", "stdin"):
                if self.sockets[name] in ready:
                    self.from_client(name)
            if self.sockets["hb"] in ready:
                self.sockets["hb"].send_multipart(self.sockets["hb"].recv_multipart())
            if self.sockets["iopub"] in ready:
                self.subscribed()
            if self.kernel.socket.fileno() in ready and not self.from_kernel():
                return

    def from_client(self, name):
        identities, parts = self.session.feed_identities(
            self.sockets[name].recv_multipart(), copy=True
        )
        message = self.session.deserialize(parts)
        kind = message["header"]["msg_type"]
        message["header"]["date"] = str(message["header"]["date"])
        self.identities[message["header"]["msg_id"]] = identities
        if kind == "interrupt_request" and name == "control":
            self.kernel.interrupt()
            self.session.send(
                self.sockets[name], "interrupt_reply", {"status": "ok"}, message, identities
            )
            return
        self.kernel.send(name, message)

    def from_kernel(self):
        messages = self.kernel.receive()
        if messages is None:
            return False
        for message in messages:
            channel = message["channel"]
            parent = message["parent_header"]
            identities = self.identities.get(parent.get("msg_id"), [])
            if channel == "iopub":
                identities = [message["header"]["msg_type"].encode()]
            self.session.send(
                self.sockets[channel],
                self.session.msg(
                    message["header"]["msg_type"],
                    content=message["content"],
                    parent=parent,
                    header=message["header"],
                    metadata=message["metadata"],
                ),
                ident=identities,
                buffers=message["buffers"],
            )
        return True

    def subscribed(self):
        event = self.sockets["iopub"].recv()
        if event[:1] == b"\x01":
            self.session.send(
                self.sockets["iopub"], "iopub_welcome", {"subscription": event[1:].decode()}
            )


if __name__ == "__main__":
    Bridge(sys.argv[sys.argv.index("-f") + 1]).run()
