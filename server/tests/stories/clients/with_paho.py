"""What people do with paho-mqtt: with_paho.py HOST PORT VERSION [TRANSPORT [CA-FILE]].

VERSION is 3 (3.1.1) or 5, TRANSPORT `tcp` or `websockets`; a CA file means TLS. Prints each scenario that held, at last `done`.
"""

import json
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

HOST, PORT = sys.argv[1], int(sys.argv[2])
V5 = sys.argv[3] == "5"
TRANSPORT = sys.argv[4] if len(sys.argv) > 4 else "tcp"
CA = sys.argv[5] if len(sys.argv) > 5 else None
PATIENCE = 60


class Client:
    """A connected client; what happens to it waits in queues."""

    def __init__(self, user, client_id="", session=False, will=None):
        happened = ("connected", "subscribed", "unsubscribed", "published", "message", "disconnected")
        self.queues = {what: queue.Queue() for what in happened}
        self.mqtt = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if V5 else not session,
            protocol=mqtt.MQTTv5 if V5 else mqtt.MQTTv311,
            transport=TRANSPORT,
            reconnect_on_failure=False,
        )
        if TRANSPORT == "websockets":
            self.mqtt.ws_set_options(path="/mqtt")
        if CA:
            self.mqtt.tls_set(ca_certs=CA)
        if will:
            self.mqtt.will_set(*will, qos=1, properties=properties(PacketTypes.WILLMESSAGE, ContentType="text/plain"))
        self.mqtt.username_pw_set(user, user + "-secret")
        queues = self.queues
        self.mqtt.on_connect = lambda c, u, flags, reason, p: queues["connected"].put((reason, flags.session_present))
        self.mqtt.on_subscribe = lambda c, u, mid, reasons, p: queues["subscribed"].put(reasons)
        self.mqtt.on_unsubscribe = lambda c, u, mid, reasons, p: queues["unsubscribed"].put(reasons)
        self.mqtt.on_publish = lambda c, u, mid, reason, p: queues["published"].put((reason, p))
        self.mqtt.on_message = lambda c, u, message: queues["message"].put(message)
        self.mqtt.on_disconnect = lambda c, u, flags, reason, p: queues["disconnected"].put(reason)
        options = {}
        if V5:
            expiry = {"SessionExpiryInterval": 3600} if session else {}
            options = {"clean_start": not session, "properties": properties(PacketTypes.CONNECT, **expiry)}
        self.mqtt.connect(HOST, PORT, **options)
        self.mqtt.loop_start()
        reason, self.session_present = self.next("connected")
        assert not reason.is_failure, reason

    def next(self, what):
        return self.queues[what].get(timeout=PATIENCE)

    def subscribe(self, topic, qos=1):
        self.mqtt.subscribe(topic, qos)
        for reason in self.next("subscribed"):
            assert reason.value == qos, reason

    def unsubscribe(self, topic):
        self.mqtt.unsubscribe(topic)
        self.next("unsubscribed")

    def publish(self, topic, payload="", qos=1, retain=False, **values):
        """Publishes and returns what the acknowledgement says."""
        self.mqtt.publish(topic, payload, qos, retain, properties(PacketTypes.PUBLISH, **values))
        return self.next("published")

    def message(self):
        return self.next("message")

    def texts(self, count):
        return [self.message().payload.decode() for _ in range(count)]

    def disconnect(self, **options):
        self.mqtt.disconnect(**options)
        self.left()

    def left(self):
        """Waits until the connection is gone."""
        self.next("disconnected")
        self.mqtt.loop_stop()


def properties(packet, **values):
    """MQTT 5 properties; nothing in 3.1.1."""
    if not V5:
        return None
    made = Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


def each_qos(alice, bob):
    for qos in (0, 1, 2):
        bob.subscribe("qos/%d" % qos, qos)
        alice.publish("qos/%d" % qos, "at %d" % qos, qos)
        message = bob.message()
        assert (message.payload, message.qos, message.retain) == (b"at %d" % qos, qos, False)


def wildcards(alice, bob):
    bob.subscribe("wild/+/x/#")
    for topic in ("wild/a/y", "wild/a/b/x", "wild/a/x", "wild/b/x/y/z"):
        alice.publish(topic)
    assert [bob.message().topic for _ in range(2)] == ["wild/a/x", "wild/b/x/y/z"]
    bob.unsubscribe("wild/+/x/#")
    bob.subscribe("wild/end")
    alice.publish("wild/a/x")
    alice.publish("wild/end")
    assert bob.message().topic == "wild/end"


def retained(alice, bob):
    alice.publish("kept/1", "old", retain=True)
    alice.publish("kept/1", "new", retain=True)
    alice.publish("kept/2", "gone", retain=True)
    alice.publish("kept/2", "", retain=True)
    bob.subscribe("kept/+")
    message = bob.message()
    assert (message.topic, message.payload, message.retain) == ("kept/1", b"new", True)
    alice.publish("kept/2", "live", retain=True)
    message = bob.message()
    assert (message.payload, message.retain) == (b"live", False)


def will(alice, bob):
    bob.subscribe("will/+")
    mortal = Client("alice", "mortal", will=("will/1", "lost"))
    if V5:
        mortal.disconnect(reasoncode=ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message"))
    else:
        Client("alice", "mortal").disconnect()
        mortal.left()
    message = bob.message()
    assert (message.topic, message.payload) == ("will/1", b"lost")
    assert not V5 or message.properties.ContentType == "text/plain"
    Client("alice", "mortal", will=("will/2", "not lost")).disconnect()
    alice.publish("will/end")
    assert bob.message().topic == "will/end"


def session(alice, _bob):
    away = Client("bob", "away", session=True)
    assert not away.session_present
    away.subscribe("queue/1", 1)
    away.subscribe("queue/2", 2)
    away.disconnect()
    for number in range(100):
        alice.publish("queue/%d" % (number % 2 + 1), str(number), qos=number % 2 + 1)
    away = Client("bob", "away", session=True)
    assert away.session_present
    messages = [away.message() for _ in range(100)]
    for qos in (1, 2):
        queued = [message for message in messages if message.topic == "queue/%d" % qos]
        assert [int(message.payload) for message in queued] == list(range(qos - 1, 100, 2))
        assert all(message.qos == qos for message in queued)
    away.disconnect()


def shared(alice, bob):
    members = [bob, Client("bob")]
    for member in members:
        member.subscribe("$share/team/jobs/+")
        member.subscribe("end")
    for number in range(20):
        alice.publish("jobs/%d" % number, str(number))
    alice.publish("end", "end")
    shares = []
    for member in members:
        shares.append(list(iter(lambda member=member: member.message().payload.decode(), "end")))
    assert all(shares), "somebody was left out"
    assert sorted(map(int, sum(shares, []))) == list(range(20)), shares
    members[1].disconnect()


def sizes(alice, bob):
    bob.subscribe("size")
    # Around the limits of what WebSocket frames announce in one and in three bytes.
    for size in (0, 1, 124, 125, 126, 65_000, 65_535, 65_536, 200_000):
        payload = bytes(number % 251 for number in range(size))
        alice.publish("size", payload)
        assert bob.message().payload == payload, size


def with_properties(alice, bob):
    bob.subscribe("properties")
    told = {
        "UserProperty": [("a", "1"), ("a", "2"), ("ü", "")],
        "ContentType": "application/json",
        "ResponseTopic": "answers/alice",
        "CorrelationData": b"\x00\xff",
        "PayloadFormatIndicator": 1,
    }
    alice.publish("properties", "{}", MessageExpiryInterval=100, **told)
    heard = bob.message().properties
    assert {name: getattr(heard, name) for name in told} == told
    assert 90 <= heard.MessageExpiryInterval <= 100


def topic_alias(alice, bob):
    bob.subscribe("a/long/name")
    alice.publish("a/long/name", "named", TopicAlias=1)
    alice.publish("", "aliased", TopicAlias=1)
    assert bob.texts(2) == ["named", "aliased"]


def chat(alice, bob):
    watcher = Client("alice")
    watcher.subscribe("chat/me/rcpt/+")
    reader = Client("bob", "reader", session=True)
    reader.subscribe("chat/me/txt/+")
    reader.disconnect()
    for number in range(100):
        alice.mqtt.publish("chat/to/@bob", "line %d" % number, qos=number % 2 + 1)
    for _ in range(100):
        assert not alice.next("published")[0].is_failure
    bob.subscribe("chat/me/in/+")
    entries = [json.loads(bob.message().payload) for _ in range(100)]
    assert [entry["t"] for entry in entries] == ["line %d" % number for number in range(100)]
    reader = Client("bob", "reader", session=True)
    assert reader.session_present
    assert reader.texts(100) == ["alice: line %d" % number for number in range(100)]

    newest = entries[-1]
    reader.publish("chat/c/%s/read" % newest["cid"], str(newest["seq"]))
    while True:
        receipt = watcher.message()
        assert receipt.topic == "chat/me/rcpt/" + newest["cid"]
        if json.loads(receipt.payload)["read_all"] == newest["seq"]:
            break
    reader.disconnect()
    watcher.disconnect()


def refusal(alice, _bob):
    alice.subscribe("chat/me/err/+")
    reason, told = alice.publish("chat/to/@nobody", "is there anybody?")
    if V5:
        assert reason.value == 0x90, reason
        assert ("error", "not_found") in told.UserProperty
    message = alice.message()
    assert message.topic.startswith("chat/me/err/@"), message.topic
    assert json.loads(message.payload)["error"] == "not_found"


def call(alice, _bob):
    alice.subscribe("chat/me/rpc/+")
    if V5:
        alice.publish("chat/rpc/me.get", ResponseTopic="chat/me/rpc/1", CorrelationData=b"\x00\x01")
    else:
        alice.publish("chat/rpc/me.get/1")
    reply = alice.message()
    assert reply.topic == "chat/me/rpc/1"
    assert json.loads(reply.payload)["ok"]["handle"] == "alice", reply.payload
    assert not V5 or reply.properties.CorrelationData == b"\x00\x01"


alice, bob = Client("alice"), Client("bob")
of_both = [each_qos, wildcards, retained, will, session, shared, sizes, chat, refusal, call]
for scenario in of_both + ([with_properties, topic_alias] if V5 else []):
    scenario(alice, bob)
    print(scenario.__name__, flush=True)
alice.disconnect()
bob.disconnect()
print("done")
