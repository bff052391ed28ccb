"""Two people chat through an unmodified paho-mqtt: chat.py PORT VERSION, where VERSION is 3 (3.1.1) or 5.

Bob's client is away while Alice sends; QoS 2 at the sender, QoS 1 at the receiver. Exits with 0 if all came in order.
"""

import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PORT = int(sys.argv[1])
PROTOCOL = mqtt.MQTTv5 if sys.argv[2] == "5" else mqtt.MQTTv311
PATIENCE = 60
COUNT = 200


class Person:
    """A connected client that puts what happens to it into queues."""

    def __init__(self, user, client_id):
        self.events = queue.Queue()
        self.messages = queue.Queue()
        self.acks = queue.Queue()
        persistent = {} if PROTOCOL == mqtt.MQTTv5 else {"clean_session": False}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=PROTOCOL, **persistent
        )
        self.client.username_pw_set(user, user + "-secret")
        self.client.max_inflight_messages_set(20)
        self.client.on_connect = lambda c, u, flags, reason, p: self.events.put(("connected", reason, flags))
        self.client.on_subscribe = lambda c, u, mid, reasons, p: self.events.put(("subscribed", reasons[0]))
        self.client.on_disconnect = lambda c, u, flags, reason, p: self.events.put(("disconnected", reason))
        self.client.on_message = lambda c, u, message: self.messages.put((message.topic, message.payload.decode()))
        self.client.on_publish = lambda c, u, mid, reason, properties: self.acks.put((mid, reason, properties))

    def connect(self):
        options = {}
        if PROTOCOL == mqtt.MQTTv5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
            options = {"clean_start": False, "properties": properties}
        self.client.connect("127.0.0.1", PORT, **options)
        self.client.loop_start()
        event = self.events.get(timeout=PATIENCE)
        assert event[0] == "connected" and not event[1].is_failure, event
        return event[2].session_present

    def subscribe(self, topic):
        self.client.subscribe(topic, qos=1)
        event = self.events.get(timeout=PATIENCE)
        assert event[0] == "subscribed" and not event[1].is_failure, event

    def disconnect(self):
        self.client.disconnect()
        event = self.events.get(timeout=PATIENCE)
        assert event[0] == "disconnected", event
        self.client.loop_stop()


bob = Person("bob", "bob-paho")
assert not bob.connect()
bob.subscribe("chat/me/txt/+")
bob.disconnect()

alice = Person("alice", "alice-paho")
alice.connect()
alice.subscribe("chat/me/err/+")
for number in range(COUNT):
    alice.client.publish("chat/to/@bob", "line %d" % number, qos=2 if number % 2 else 1)
for _ in range(COUNT):
    mid, reason, properties = alice.acks.get(timeout=PATIENCE)
    assert not reason.is_failure, (mid, reason, properties)

assert bob.connect(), "the session outlives the connection"
lines = [bob.messages.get(timeout=PATIENCE)[1] for _ in range(COUNT)]
assert lines == ["alice: line %d" % number for number in range(COUNT)], lines

alice.client.publish("chat/to/@nobody", "is there anybody?", qos=1)
mid, reason, properties = alice.acks.get(timeout=PATIENCE)
if PROTOCOL == mqtt.MQTTv5:
    assert reason.value == 0x90, reason
    assert ("error", "not_found") in properties.UserProperty
topic, refusal = alice.messages.get(timeout=PATIENCE)
assert topic.startswith("chat/me/err/@") and '"not_found"' in refusal, (topic, refusal)
bob.disconnect()
alice.disconnect()
