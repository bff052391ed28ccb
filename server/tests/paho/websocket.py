"""An unmodified paho-mqtt over WebSocket: websocket.py PORT VERSION [CA-FILE], where VERSION is 3 (3.1.1) or 5.

Alice sends to herself, lines of very different lengths, and gets them in order. paho sends an Origin, as browsers do.
"""

import queue
import sys

import paho.mqtt.client as mqtt

PORT = int(sys.argv[1])
PROTOCOL = mqtt.MQTTv5 if sys.argv[2] == "5" else mqtt.MQTTv311
PATIENCE = 60

events = queue.Queue()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=PROTOCOL, transport="websockets")
client.ws_set_options(path="/mqtt")
if len(sys.argv) > 3:
    client.tls_set(ca_certs=sys.argv[3])
client.username_pw_set("alice", "alice-secret")
client.on_connect = lambda c, u, flags, reason, p: events.put(("connected", reason))
client.on_subscribe = lambda c, u, mid, reasons, p: events.put(("subscribed", reasons[0]))
client.on_message = lambda c, u, message: events.put(("message", message.payload.decode()))
client.on_disconnect = lambda c, u, flags, reason, p: events.put(("disconnected", reason))


def expect(kind):
    event = events.get(timeout=PATIENCE)
    assert event[0] == kind, event
    return event[1]


client.connect("localhost", PORT)
client.loop_start()
assert not expect("connected").is_failure
client.subscribe("chat/me/txt/+", qos=1)
assert not expect("subscribed").is_failure
lines = [str(number) + "x" * length for number, length in enumerate([0, 100, 125, 126, 127, 60000, 65000] * 10)]
for line in lines:
    client.publish("chat/to/me", line, qos=1)
for line in lines:
    text = expect("message")
    assert text == "alice: " + line, text[:100]
client.disconnect()
assert not expect("disconnected").is_failure
client.loop_stop()
