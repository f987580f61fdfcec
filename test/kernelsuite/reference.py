"""Runs the corpus of internal/kernel/kerneltest on real ipykernel.

Reads the cases as JSON from stdin, writes {case: [message, ...]} to stdout. A zygote process imports
ipykernel once and forks one fresh kernel for each case: a start costs some 50 ms instead of 600.
"""

import json
import os
import signal
import sys
import tempfile
import time

# Seconds. A busy machine is slow; cases that end ipykernel for good are not run on it.
TIMEOUT = 30


def zygote(orders, answers):
    """Forks a kernel for each connection file named on orders, and answers with its pid."""
    import ipykernel.ipkernel  # noqa: F401
    import ipykernel.kernelapp  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in orders:
        pid = os.fork()
        if pid == 0:
            kernel(line.strip())
            os._exit(0)
        answers.write(f"{pid}\n")
        answers.flush()
    os._exit(0)


def kernel(connection_file):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    # The same surroundings as for our kernel: no history on disk, the same renderers.
    os.environ.setdefault("PLOTLY_RENDERER", "plotly_mimetype")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.chdir(tempfile.mkdtemp())
    sys.path.insert(0, "")
    sys.stdin = open(0)
    from ipykernel.kernelapp import IPKernelApp

    app = IPKernelApp.instance()
    app.initialize(["-f", connection_file, "--HistoryManager.hist_file=:memory:"])
    sys.argv = [""]
    app.start()


class Runner:
    def __init__(self, orders, answers, folder):
        self.orders, self.answers, self.folder = orders, answers, folder
        self.count = 0

    def start(self):
        from jupyter_client import BlockingKernelClient
        from jupyter_client.connect import write_connection_file

        self.count += 1
        path = os.path.join(self.folder, f"{self.count}.json")
        write_connection_file(
            path, transport="ipc", ip=os.path.join(self.folder, str(self.count)), key=b"key"
        )
        self.orders.write(path + "\n")
        self.orders.flush()
        pid = int(self.answers.readline())
        client = BlockingKernelClient(connection_file=path)
        client.load_connection_file()
        client.start_channels()
        client.wait_for_ready(timeout=TIMEOUT)
        return pid, client

    def run(self, case):
        import zmq

        pid, client = self.start()
        channels = {
            "iopub": client.iopub_channel,
            "shell": client.shell_channel,
            "stdin": client.stdin_channel,
            "control": client.control_channel,
        }
        poller = zmq.Poller()
        for channel in channels.values():
            poller.register(channel.socket, zmq.POLLIN)
        messages, steps, pending = [], {}, set()
        try:
            for number, step in enumerate(case["steps"], 1):
                options = step["options"]
                message = client.session.msg(step["type"], step["content"])
                steps[message["header"]["msg_id"]] = number
                if step["type"].endswith("_request"):
                    pending.add((message["header"]["msg_id"], "reply"))
                pending.add((message["header"]["msg_id"], "idle"))
                channels[step["channel"]].send(message)
                if options.get("no_wait"):
                    continue
                answers = list(options.get("input") or ())
                interrupt = options.get("interrupt_after_ms")
                interrupt = time.monotonic() + interrupt / 1000 if interrupt else None
                deadline, late = time.monotonic() + TIMEOUT, None
                while True:
                    if not pending and late is None:
                        if not options.get("wait_ms"):
                            break
                        late = time.monotonic() + options["wait_ms"] / 1000
                    now = time.monotonic()
                    if late is not None and now >= late:
                        break
                    if interrupt is not None and now >= interrupt:
                        interrupt = None
                        os.killpg(pid, signal.SIGINT)
                    if now > deadline:
                        raise TimeoutError("no reply")
                    ready = dict(poller.poll(10))
                    for name, channel in channels.items():
                        if channel.socket not in ready:
                            continue
                        while channel.socket.poll(0):
                            got = channel.get_msg(timeout=1)
                            parent = got["parent_header"].get("msg_id")
                            kind = got["header"]["msg_type"]
                            if parent not in steps:
                                continue
                            if kind == "status":
                                if got["content"]["execution_state"] == "idle":
                                    pending.discard((parent, "idle"))
                            elif name in ("shell", "control"):
                                pending.discard((parent, "reply"))
                            messages.append(
                                {
                                    "step": steps[parent],
                                    "type": kind,
                                    "content": got["content"],
                                    "metadata": got["metadata"],
                                }
                            )
                            if kind == "input_request" and answers:
                                client.input(answers.pop(0))
        finally:
            client.stop_channels()
            try:
                os.killpg(pid, signal.SIGKILL)
            except OSError:
                pass
        return messages


def main():
    cases = json.load(sys.stdin)
    order_read, order_write = os.pipe()
    answer_read, answer_write = os.pipe()
    if os.fork() == 0:
        os.close(order_write)
        os.close(answer_read)
        zygote(os.fdopen(order_read), os.fdopen(answer_write, "w"))
    os.close(order_read)
    os.close(answer_write)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(os.fdopen(order_write, "w"), os.fdopen(answer_read), folder)
        results = {}
        for case in cases:
            try:
                results[case["name"]] = runner.run(case)
            except Exception as error:
                print(f"{case['name']}: {error!r}", file=sys.stderr)
                results[case["name"]] = [
                    {"step": 0, "type": "failed", "content": {"error": repr(error)}, "metadata": {}}
                ]
    json.dump(results, sys.stdout, default=str)


if __name__ == "__main__":
    main()
