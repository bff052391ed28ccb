"""What people do with gmqtt, a client for asyncio: with_gmqtt.py HOST PORT VERSION, where VERSION is 3 (3.1.1) or 5.

Prints each scenario that held, at last `done`.
"""

import asyncio
import json
import sys

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.storage import PersistentStorage

HOST, PORT = sys.argv[1], int(sys.argv[2])
V5 = sys.argv[3] == "5"
PATIENCE = 60
# Number of attempts: -1 is for ever, 0 is one.
NEVER = -2


class Message:
    def __init__(self, topic, payload, qos, properties):
        self.topic, self.payload, self.qos, self.properties = topic, payload, qos, properties
        self.retain = bool(properties["retain"])


class Client:
    """A connected client; what happens to it waits in queues."""

    @classmethod
    async def connected(cls, user, client_id=None, session=False, will=None, **properties):
        self = cls()
        self.messages, self.granted, self.unacknowledged = asyncio.Queue(), asyncio.Queue(), PersistentStorage()
        self.unsubscribed = asyncio.Queue()
        self.session_present = None
        if session and V5:
            properties["session_expiry_interval"] = 3600
        self.mqtt = gmqtt.Client(
            client_id,
            clean_session=not session,
            will_message=will,
            persistent_storage=self.unacknowledged,
            **properties,
        )
        self.mqtt.reconnect_retries = NEVER
        self.mqtt.set_auth_credentials(user, user + "-secret")
        self.mqtt.on_connect = self.on_connect
        self.mqtt.on_message = lambda client, *parts: self.messages.put_nowait(Message(*parts))
        self.mqtt.on_subscribe = lambda client, mid, granted, properties: self.granted.put_nowait(granted)
        self.mqtt.on_unsubscribe = lambda client, mid, *reasons: self.unsubscribed.put_nowait(reasons)
        await in_time(self.mqtt.connect(HOST, PORT, version=MQTTv50 if V5 else MQTTv311))
        return self

    def on_connect(self, _client, flags, _reason, _properties):
        self.session_present = bool(flags & 1)

    async def subscribe(self, topic, qos=1):
        self.mqtt.subscribe(topic, qos)
        granted = await in_time(self.granted.get())
        assert granted == (qos,), granted

    async def unsubscribe(self, topic):
        self.mqtt.unsubscribe(topic)
        await in_time(self.unsubscribed.get())

    async def publish(self, topic, payload="", qos=1, retain=False, **properties):
        """Publishes and waits until that is acknowledged."""
        self.mqtt.publish(topic, payload, qos, retain, **properties)
        await in_time(self.unacknowledged.wait_empty())

    async def message(self):
        return await in_time(self.messages.get())

    async def texts(self, count):
        return [(await self.message()).payload.decode() for _ in range(count)]

    async def disconnect(self):
        await in_time(self.mqtt.disconnect())


async def in_time(what):
    return await asyncio.wait_for(what, PATIENCE)


async def each_qos(alice, bob):
    for qos in (0, 1, 2):
        await bob.subscribe(f"qos/{qos}", qos)
        await alice.publish(f"qos/{qos}", f"at {qos}", qos)
        message = await bob.message()
        assert (message.payload, message.qos, message.retain) == (b"at %d" % qos, qos, False)


async def wildcards(alice, bob):
    await bob.subscribe("wild/+/x/#")
    for topic in ("wild/a/y", "wild/a/b/x", "wild/a/x", "wild/b/x/y/z"):
        await alice.publish(topic)
    assert [(await bob.message()).topic for _ in range(2)] == ["wild/a/x", "wild/b/x/y/z"]
    await bob.unsubscribe("wild/+/x/#")
    await bob.subscribe("wild/end")
    await alice.publish("wild/a/x")
    await alice.publish("wild/end")
    assert (await bob.message()).topic == "wild/end"


async def retained(alice, bob):
    await alice.publish("kept/1", "old", retain=True)
    await alice.publish("kept/1", "new", retain=True)
    await alice.publish("kept/2", "gone", retain=True)
    await alice.publish("kept/2", "", retain=True)
    await bob.subscribe("kept/+")
    message = await bob.message()
    assert (message.topic, message.payload, message.retain) == ("kept/1", b"new", True)
    await alice.publish("kept/2", "live", retain=True)
    message = await bob.message()
    assert (message.payload, message.retain) == (b"live", False)


async def will(alice, bob):
    await bob.subscribe("will/+")
    told = {"content_type": "text/plain"} if V5 else {}
    mortal = await Client.connected("alice", "mortal", will=gmqtt.Message("will/1", "lost", qos=1, **told))
    # gmqtt has no public way to lose a connection.
    await mortal.mqtt._connection.close()
    message = await bob.message()
    assert (message.topic, message.payload) == ("will/1", b"lost")
    assert not V5 or message.properties["content_type"] == ["text/plain"]
    mortal = await Client.connected("alice", "mortal", will=gmqtt.Message("will/2", "not lost", qos=1))
    await mortal.disconnect()
    await alice.publish("will/end")
    assert (await bob.message()).topic == "will/end"


async def session(alice, _bob):
    away = await Client.connected("bob", "away", session=True)
    assert not away.session_present
    await away.subscribe("queue/1", 1)
    await away.subscribe("queue/2", 2)
    await away.disconnect()
    for number in range(100):
        await alice.publish(f"queue/{number % 2 + 1}", str(number), qos=number % 2 + 1)
    away = await Client.connected("bob", "away", session=True)
    assert away.session_present
    messages = [await away.message() for _ in range(100)]
    for qos in (1, 2):
        queued = [message for message in messages if message.topic == f"queue/{qos}"]
        assert [int(message.payload) for message in queued] == list(range(qos - 1, 100, 2))
        assert all(message.qos == qos for message in queued)
    await away.disconnect()


async def shared(alice, bob):
    members = [bob, await Client.connected("bob")]
    for member in members:
        await member.subscribe("$share/team/jobs/+")
        await member.subscribe("end")
    for number in range(20):
        await alice.publish(f"jobs/{number}", str(number))
    await alice.publish("end", "end")
    shares = []
    for member in members:
        share = []
        while (text := (await member.message()).payload) != b"end":
            share.append(int(text))
        shares.append(share)
    assert all(shares), "somebody was left out"
    assert sorted(sum(shares, [])) == list(range(20)), shares
    await members[1].disconnect()


async def sizes(alice, bob):
    await bob.subscribe("size")
    for size in (0, 1, 127, 128, 16_383, 16_384, 200_000):
        payload = bytes(number % 251 for number in range(size))
        await alice.publish("size", payload)
        assert (await bob.message()).payload == payload, size


async def with_properties(alice, bob):
    await bob.subscribe("properties")
    await alice.publish(
        "properties",
        "{}",
        user_property=[("a", "1"), ("a", "2"), ("u", "")],
        content_type="application/json",
        response_topic="answers/alice",
        correlation_data=b"\x00\xff",
        payload_format_id=1,
        message_expiry_interval=100,
    )
    heard = (await bob.message()).properties
    assert heard["user_property"] == [("a", "1"), ("a", "2"), ("u", "")], heard
    assert heard["content_type"] == ["application/json"]
    assert heard["response_topic"] == ["answers/alice"]
    assert heard["correlation_data"] == [b"\x00\xff"]
    assert heard["payload_format_id"] == [1]
    assert 90 <= heard["message_expiry_interval"][0] <= 100


async def topic_alias(alice, _bob):
    reader = await Client.connected("bob", topic_alias_maximum=10)
    await reader.subscribe("a/long/name")
    await alice.publish("a/long/name", "named", topic_alias=1)
    await alice.publish("", "aliased", topic_alias=1)
    messages = [await reader.message() for _ in range(2)]
    assert [message.payload for message in messages] == [b"named", b"aliased"]
    assert {message.topic for message in messages} == {"a/long/name"}
    assert all("topic_alias" in message.properties for message in messages), "the server takes one as well"
    await reader.disconnect()


async def chat(alice, bob):
    watcher = await Client.connected("alice")
    await watcher.subscribe("chat/me/rcpt/+")
    reader = await Client.connected("bob", "reader", session=True)
    await reader.subscribe("chat/me/txt/+")
    await reader.disconnect()
    for number in range(100):
        await alice.publish("chat/to/@bob", f"line {number}", qos=number % 2 + 1)
    await bob.subscribe("chat/me/in/+")
    entries = [json.loads(text) for text in await bob.texts(100)]
    assert [entry["t"] for entry in entries] == [f"line {number}" for number in range(100)]
    reader = await Client.connected("bob", "reader", session=True)
    assert reader.session_present
    assert await reader.texts(100) == [f"alice: line {number}" for number in range(100)]

    newest = entries[-1]
    await reader.publish(f"chat/c/{newest['cid']}/read", str(newest["seq"]))
    while True:
        receipt = await watcher.message()
        assert receipt.topic == f"chat/me/rcpt/{newest['cid']}"
        if json.loads(receipt.payload)["read_all"] == newest["seq"]:
            break
    await reader.disconnect()
    await watcher.disconnect()


async def refusal(alice, _bob):
    await alice.subscribe("chat/me/err/+")
    await alice.publish("chat/to/@nobody", "is there anybody?")
    message = await alice.message()
    assert message.topic.startswith("chat/me/err/@"), message.topic
    assert json.loads(message.payload)["error"] == "not_found"


async def call(alice, _bob):
    await alice.subscribe("chat/me/rpc/+")
    if V5:
        await alice.publish("chat/rpc/me.get", response_topic="chat/me/rpc/1", correlation_data=b"\x00\x01")
    else:
        await alice.publish("chat/rpc/me.get/1")
    reply = await alice.message()
    assert reply.topic == "chat/me/rpc/1"
    assert json.loads(reply.payload)["ok"]["handle"] == "alice", reply.payload
    assert not V5 or reply.properties["correlation_data"] == [b"\x00\x01"]


async def main():
    alice, bob = await Client.connected("alice"), await Client.connected("bob")
    of_both = [each_qos, wildcards, retained, will, session, shared, sizes, chat, refusal, call]
    for scenario in of_both + ([with_properties, topic_alias] if V5 else []):
        await scenario(alice, bob)
        print(scenario.__name__, flush=True)
    await alice.disconnect()
    await bob.disconnect()


asyncio.run(main())
print("done")
