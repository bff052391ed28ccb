#!/usr/bin/env python3
"""What messages to a group cost for members who are away: bytes on disk and written, for groups of 10, 100 and 1,000 of them.

    cargo build --release -p server
    scripts/test --setup                                     # paho-mqtt, in .venv
    .venv/bin/python benches/compare/offline_cost.py [MESSAGES]      # 10000

Each group has a server of its own on a free port of 127.0.0.1, with data in a temporary directory; what was started is
ended. Each member has one device with a kept session and an inbox, and is away while another member writes. The bytes
on disk are those of the store after `mqchat store compact`, less those before the first message; what is written counts
the journal, too.
"""

import json
import os
import pathlib
import queue
import socket
import subprocess
import sys
import tempfile
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

ROOT = pathlib.Path(__file__).resolve().parents[2]
MQCHAT = os.environ.get("MQCHAT", ROOT / "target/release/mqchat")
MESSAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
BODY = b"x" * 100
QUICK = {  # so many passwords are hashed here
    "MQCHAT_ACCOUNTS__ARGON2_MEMORY_KIB": "8",
    "MQCHAT_ACCOUNTS__ARGON2_PASSES": "1",
    "MQCHAT_CHAT__GROUP_MEMBERS_MAX": "6000",
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    def __init__(self, data):
        self.data, self.port = data, free_port()
        command = [MQCHAT, "serve", "--dev", "--data-dir", data, "--listen", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen(command, env=os.environ | QUICK, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.1)
        raise RuntimeError("mqchat does not listen")

    def written(self):
        lines = pathlib.Path(f"/proc/{self.process.pid}/io").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))

    def stop(self):
        """Ends in order; then the bytes of the compacted store."""
        self.process.terminate()
        assert self.process.wait(60) == 0
        subprocess.run([MQCHAT, "store", "compact", "--data-dir", self.data], check=True, stdout=subprocess.DEVNULL)
        return sum(path.stat().st_size for path in pathlib.Path(self.data).rglob("*") if path.is_file())


def connect(port, user, device, clean):
    client = mqtt.Client(CallbackAPIVersion.VERSION2, f"{user}-{device}", protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set(user, "a password")
    client.max_inflight_messages_set(100)
    client.max_queued_messages_set(0)
    ready, client.inbox = queue.Queue(), queue.Queue()
    client.on_connect = lambda *_: ready.put("connected")
    client.on_subscribe = lambda *_: ready.put("subscribed")
    client.on_message = lambda _client, _data, message: client.inbox.put(message.payload)
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = 0 if clean else 86_400
    client.connect("127.0.0.1", port, clean_start=clean, properties=properties)
    client.loop_start()
    assert ready.get(timeout=30) == "connected"
    client.subscribe("chat/me/rpc/+" if clean else "chat/me/in/+", 1)
    assert ready.get(timeout=30) == "subscribed"
    return client


def close(client):
    client.disconnect()
    client.loop_stop()


def call(client, method, params):
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = f"chat/me/rpc/{time.monotonic_ns()}"
    client.publish(f"chat/rpc/{method}", json.dumps(params), 1, properties=properties)
    reply = json.loads(client.inbox.get(timeout=60))
    assert "error" not in reply, reply
    return reply["ok"]


def send(client, topic, count):
    last = [client.publish(topic, BODY, 1) for _ in range(count)]
    for one in last:
        one.wait_for_publish(60)


def measure(away):
    with tempfile.TemporaryDirectory() as data:
        server = Server(data)
        members = [f"member{number}" for number in range(away)]
        for member in members:
            close(connect(server.port, member, "phone", clean=False))
        writer = connect(server.port, "writer", "desk", clean=True)
        named = [f"@{member}" for member in members]
        group = call(writer, "conv.create", {"kind": "group", "title": "all", "members": named[:100]})["cid"]
        for start in range(100, away, 100):
            call(writer, "conv.add", {"cid": group, "members": named[start : start + 100]})
        close(writer)
        before = server.stop()
        server = Server(data)
        writer = connect(server.port, "writer", "desk", clean=True)
        written = server.written()
        send(writer, f"chat/to/{group}", MESSAGES)
        written = server.written() - written
        close(writer)
        return (server.stop() - before) / MESSAGES, written / MESSAGES


print(f"{MESSAGES} messages of {len(BODY)} bytes, QoS 1")
print("away  bytes on disk per message  bytes written per message")
for away in (10, 100, 1_000):
    on_disk, written = measure(away)
    print(f"{away:>4}  {on_disk:>25.0f}  {written:>25.0f}", flush=True)
