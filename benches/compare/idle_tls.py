#!/usr/bin/env python3
"""What an idle connection over TLS costs mqchat in resident memory: the growth from the first tenth of them on.

    cargo build --release -p server
    benches/compare/idle_tls.py [CONNECTIONS]        # 10000; needs openssl, and twice as many descriptors as connections

Starts the server on a free port of 127.0.0.1 with a certificate of its own, in a temporary directory; ends what it started.
"""

import os
import pathlib
import resource
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MQCHAT = os.environ.get("MQCHAT", ROOT / "target/release/mqchat")
CONNECT_FLAGS = 0b1100_0010  # a user, a password, Clean Session


def text(value):
    return struct.pack(">H", len(value)) + value


def connect_packet(number):
    body = text(b"MQTT") + bytes([4, CONNECT_FLAGS, 0, 0]) + text(b"idle-%d" % number) + text(b"idle") + text(b"idle-password")
    return b"\x10" + bytes([len(body)]) + body


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def resident_kb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise RuntimeError("no VmRSS")


def open_one(context, port, number):
    plain = socket.create_connection(("127.0.0.1", port))
    stream = context.wrap_socket(plain, server_hostname="localhost")
    stream.sendall(connect_packet(number))
    answer = stream.recv(4)
    assert answer == b"\x20\x02\x00\x00", answer
    return stream


def when_it_listens(server, port):
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert server.poll() is None, "the server did not start"
            time.sleep(0.1)
    sys.exit("the server does not listen")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 2"
            " -subj /CN=localhost -addext subjectAltName=DNS:localhost".split(),
            cwd=directory, check=True, stderr=subprocess.DEVNULL,
        )
        port = free_port()
        config = pathlib.Path(directory, "mqchat.toml")
        config.write_text(
            f'[[broker.listeners]]\nprotocol = "tls"\naddress = "127.0.0.1:{port}"\n'
            f'certificate = "{directory}/cert.pem"\nkey = "{directory}/key.pem"\n'
        )
        log = open(pathlib.Path(directory, "log"), "w")
        command = [MQCHAT, "serve", "--dev", "--config", config, "--data-dir", f"{directory}/data"]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            when_it_listens(server, port)
            context = ssl.create_default_context(cafile=f"{directory}/cert.pem")
            first = max(count // 10, 1)
            streams = [open_one(context, port, number) for number in range(first)]
            before = resident_kb(server.pid)
            streams += [open_one(context, port, number) for number in range(first, count)]
            time.sleep(2)
            after = resident_kb(server.pid)
            each = (after - before) / (count - first)
            print(f"{count} idle connections over {streams[0].version()}: {before} -> {after} KB resident, {each:.1f} KB each")
        finally:
            server.terminate()
            server.wait()


main()
